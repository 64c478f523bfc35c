package cli

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
)

// input reads from a terminal or a pipe until a context ends. A blocked read does
// not notice the end of a context, so its goroutine is left behind then; it ends
// with the next byte, or with the program.
type input struct {
	ctx    context.Context
	chunks chan chunk
	taken  chan struct{} // the last chunk has been copied
	rest   chunk
}

type chunk struct {
	b   []byte
	err error
}

// newInput reads s.In. To somebody at a terminal it says so.
func newInput(ctx context.Context, s Streams) *input {
	if isTerminal(s.In) && terminalWidth(s.Err) > 0 {
		fmt.Fprintln(s.Err, "reading what you type; Ctrl-D ends the input")
	}
	in := &input{ctx: ctx, chunks: make(chan chunk), taken: make(chan struct{}, 1)}
	go in.pump(s.In)
	return in
}

func (in *input) pump(r io.Reader) {
	b := make([]byte, 64<<10)
	for {
		n, err := r.Read(b)
		select {
		case in.chunks <- chunk{b[:n], err}:
		case <-in.ctx.Done():
			return
		}
		if err != nil {
			return
		}
		select {
		case <-in.taken:
		case <-in.ctx.Done():
			return
		}
	}
}

// Read implements io.Reader. It returns errInterrupted once the context has
// ended.
func (in *input) Read(p []byte) (int, error) {
	if len(in.rest.b) == 0 {
		if in.rest.err != nil {
			return 0, in.rest.err
		}
		select {
		case in.rest = <-in.chunks:
		case <-in.ctx.Done():
			return 0, errInterrupted
		}
	}
	n := copy(p, in.rest.b)
	if in.rest.b = in.rest.b[n:]; len(in.rest.b) == 0 && in.rest.err == nil {
		in.taken <- struct{}{}
	}
	return n, nil
}

// eachLine calls f for each non-empty line of the input, with its number, and
// whether more input can be read without waiting.
func eachLine(ctx context.Context, s Streams, f func(n int, line []byte, more bool) error) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	in := bufio.NewReaderSize(newInput(ctx, s), 64<<10)
	for n := 1; ; n++ {
		line, tooLong, err := readLine(in)
		if tooLong {
			return fmt.Errorf("line %d is longer than %d bytes", n, maxLine)
		}
		if line = bytes.TrimSpace(line); len(line) > 0 {
			if err := f(n, line, err == nil && in.Buffered() > 0); err != nil {
				return err
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
