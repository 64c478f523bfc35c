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
	name: "user", args: "NAME", about: "generate the configuration of a user of a broker",
	long: `It generates a token and prints the lines for hark.yaml, with the hash of the token,
on standard output; the token itself goes to standard error and is kept nowhere. With
--password it reads a password instead, from a terminal twice. With --output json
everything is one object on standard output, including the token, which is not part of
"user".`,
	setup: func(fs *flag.FlagSet) action {
		password := fs.Bool("password", false, "read a password, from the terminal or from one line of the input")
		output := outputFlag(fs, "text", "json")
		return func(ctx context.Context, words []string, s Streams) error {
			if len(words) != 1 {
				return usageError{fmt.Errorf("want one name, got %s", plural(len(words), "word", "words"))}
			}
			if err := broker.CheckUserName(words[0]); err != nil {
				return usageError{err}
			}
			made := newUser{User: userLines{Name: words[0], Publish: []string{}, Subscribe: []string{}, Admin: []string{}}}
			if *password {
				secret, err := readNewPassword(ctx, s)
				if err != nil {
					return err
				}
				hash, err := broker.HashPassword(secret)
				if err != nil {
					return err
				}
				made.User.Password = hash
			} else {
				made.Token = rand.Text()
				made.User.Token = broker.HashToken(made.Token)
			}
			if *output == "json" {
				return printJSON(s.Out, made)
			}
			return made.print(s)
		}
	},
}

// newUser is the output of hark user.
type newUser struct {
	User  userLines `json:"user"`            // for the users in the configuration
	Token string    `json:"token,omitempty"` // the secret; empty if there is a password
}

// userLines are the lines for a user in the configuration.
type userLines struct {
	Name      string   `json:"name"`
	Password  string   `json:"password,omitempty"` // a hash
	Token     string   `json:"token,omitempty"`    // a hash
	Publish   []string `json:"publish"`
	Subscribe []string `json:"subscribe"`
	Admin     []string `json:"admin"`
}

// print prints the lines for the configuration, and the token next to them.
func (u *newUser) print(s Streams) error {
	line := "password: " + u.User.Password
	if u.Token != "" {
		fmt.Fprintf(s.Err, "the token of %s, which is its password (hark://%s:TOKEN@HOST): %s\n", u.User.Name, u.User.Name, u.Token)
		line = "token: " + u.User.Token
	}
	_, err := fmt.Fprintf(s.Out, "users:\n  - name: %s\n    %s\n    publish: []\n    subscribe: []\n    admin: []\n", u.User.Name, line)
	return err
}

// readNewPassword reads a password, from a terminal twice.
func readNewPassword(ctx context.Context, s Streams) ([]byte, error) {
	secret, err := readPassword(ctx, s, "password: ")
	if err != nil || !isTerminal(s.In) {
		return secret, err
	}
	again, err := readPassword(ctx, s, "the same again: ")
	if err == nil && !bytes.Equal(secret, again) {
		err = errors.New("the two passwords differ; nothing was done")
	}
	return secret, err
}

func isTerminal(in io.Reader) bool {
	f, ok := in.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// readPassword reads a password, from a terminal after a prompt.
func readPassword(ctx context.Context, s Streams, prompt string) ([]byte, error) {
	var secret []byte
	var err error
	if isTerminal(s.In) {
		fmt.Fprint(s.Err, prompt)
		secret, err = readHidden(ctx, int(s.In.(*os.File).Fd()))
		if !errors.Is(err, errInterrupted) {
			fmt.Fprintln(s.Err) // of the line break that was typed nothing is shown
		}
	} else {
		secret, err = bufio.NewReader(newInput(ctx, s)).ReadBytes('\n')
		if err == io.EOF {
			err = nil
		}
	}
	if secret = bytes.TrimRight(secret, "\r\n"); err == nil && len(secret) == 0 {
		err = errors.New("the password is empty")
	}
	return secret, err
}

// readHidden reads a line from a terminal that does not show it, until ctx ends. Like
// that of an input, its goroutine is left behind then.
func readHidden(ctx context.Context, fd int) ([]byte, error) {
	before, err := term.GetState(fd)
	if err != nil {
		return nil, err
	}
	type line struct {
		text []byte
		err  error
	}
	read := make(chan line, 1)
	go func() {
		text, err := term.ReadPassword(fd)
		read <- line{text, err}
	}()
	select {
	case l := <-read:
		return l.text, l.err
	case <-ctx.Done():
		return nil, errors.Join(errInterrupted, term.Restore(fd, before))
	}
}
