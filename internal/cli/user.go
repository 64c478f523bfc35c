package cli

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"

	"golang.org/x/term"

	"github.com/harkbus/hark/broker"
)

var userCommand = command{
	name: "user", args: "NAME", about: "make the lines of a configuration for a user of a broker",
	long: `It makes a token and prints what hark.yaml needs of it, which is its hash, on
standard output; the token itself is on standard error and is kept nowhere. With
--password it reads a password instead.`,
	setup: func(fs *flag.FlagSet) action {
		password := fs.Bool("password", false, "read a password, from the terminal or from one line of the input")
		return func(ctx context.Context, words []string, s Streams) error {
			if len(words) != 1 {
				return usageError{fmt.Errorf("want one name, and not %s", plural(len(words), "word", "words"))}
			}
			var line string
			switch {
			case *password:
				secret, err := readPassword(ctx, s)
				if err != nil {
					return err
				}
				hash, err := broker.HashPassword(secret)
				if err != nil {
					return err
				}
				line = "password: " + hash
			default:
				token := rand.Text()
				fmt.Fprintf(s.Err, "the token of %s, which is its password (hark://%s:TOKEN@HOST): %s\n", words[0], words[0], token)
				line = "token: " + broker.HashToken(token)
			}
			_, err := fmt.Fprintf(s.Out, "users:\n  - name: %s\n    %s\n    publish: []\n    subscribe: []\n    admin: []\n", words[0], line)
			return err
		}
	},
}

func readPassword(ctx context.Context, s Streams) ([]byte, error) {
	var secret []byte
	var err error
	if f, ok := s.In.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		fmt.Fprint(s.Err, "password: ")
		secret, err = term.ReadPassword(int(f.Fd()))
		fmt.Fprintln(s.Err)
	} else {
		secret, err = bufio.NewReader(newInput(ctx, s.In)).ReadBytes('\n')
		if err == io.EOF {
			err = nil
		}
	}
	if secret = bytes.TrimRight(secret, "\r\n"); err == nil && len(secret) == 0 {
		err = errors.New("the password is empty")
	}
	return secret, err
}
