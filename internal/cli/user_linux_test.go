package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"unsafe"
)

// ioctl reads or changes what is set for a terminal.
func ioctl[T any](t *testing.T, f *os.File, request uintptr, arg *T) {
	t.Helper()
	if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, f.Fd(), request, uintptr(unsafe.Pointer(arg))); errno != 0 {
		t.Fatal(errno)
	}
}

// openTerminal opens a terminal, and the end from which it is typed into.
func openTerminal(t *testing.T) (keyboard, terminal *os.File) {
	t.Helper()
	keyboard, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skip("there are no terminals: ", err)
	}
	t.Cleanup(func() { keyboard.Close() })
	var n, locked int32
	ioctl(t, keyboard, syscall.TIOCGPTN, &n)
	ioctl(t, keyboard, syscall.TIOCSPTLCK, &locked)
	terminal, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { terminal.Close() })
	return keyboard, terminal
}

// untilHidden waits until a terminal does not show what is typed.
func untilHidden(t *testing.T, terminal *os.File) {
	t.Helper()
	for shows(t, terminal) {
		if err := t.Context().Err(); err != nil {
			t.Fatal(err)
		}
		runtime.Gosched()
	}
}

func shows(t *testing.T, terminal *os.File) bool {
	t.Helper()
	var state syscall.Termios
	ioctl(t, terminal, syscall.TCGETS, &state)
	return state.Lflag&syscall.ECHO != 0
}

// TestNewPassword types a password twice, and as another one.
func TestNewPassword(t *testing.T) {
	keyboard, terminal := openTerminal(t)
	for _, tt := range []struct{ typed, want, err string }{
		{"sesame\nsesame\n", "sesame", ""},
		{"sesame\nsesam\n", "sesame", "the two passwords differ"},
		{"\n", "", "the password is empty"},
	} {
		if _, err := keyboard.WriteString(tt.typed); err != nil {
			t.Fatal(err)
		}
		var shown bytes.Buffer
		secret, err := readNewPassword(t.Context(), Streams{In: terminal, Out: io.Discard, Err: &shown})
		if string(secret) != tt.want || (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
			t.Errorf("%q: got %q, %v, want %q, %q", tt.typed, secret, err, tt.want, tt.err)
		}
		if twice := strings.Contains(shown.String(), "again"); twice != (tt.want != "") {
			t.Errorf("%q: it asked twice: %v", tt.typed, twice)
		}
	}
}

// TestLeaveLine interrupts a command on a terminal, which has shown ^C by then.
func TestLeaveLine(t *testing.T) {
	t.Setenv("TERM", "xterm")
	keyboard, terminal := openTerminal(t)
	ctx, cancel := context.WithCancel(t.Context())
	end := leaveLine(ctx, terminal)
	cancel()
	end()
	shown := make([]byte, 8)
	if n, err := keyboard.Read(shown); string(shown[:n]) != "\r\n" || err != nil {
		t.Errorf("got %q, %v, want a new line", shown[:n], err)
	}
}

// TestInputFromTerminal reads what is typed into a terminal, and says so.
func TestInputFromTerminal(t *testing.T) {
	t.Setenv("TERM", "xterm")
	keyboard, terminal := openTerminal(t)
	screen, other := openTerminal(t)
	if _, err := keyboard.WriteString("hello\n\x04"); err != nil {
		t.Fatal(err)
	}
	text, err := dataOrInput(t.Context(), nil, Streams{In: terminal, Err: other})
	if string(text) != "hello" || err != nil {
		t.Errorf("got %q, %v", text, err)
	}
	if _, err := other.WriteString("end"); err != nil {
		t.Fatal(err)
	}
	got, part := "", make([]byte, 100)
	for !strings.HasSuffix(got, "end") { // a terminal may pass it on in parts
		n, err := screen.Read(part)
		if err != nil {
			t.Fatal(err)
		}
		got += string(part[:n])
	}
	if want := "reading what you type; Ctrl-D ends the input\r\nend"; got != want {
		t.Errorf("it shows %q, want %q", got, want)
	}
}

// TestPasswordIsInterrupted reads a password from a terminal, and presses Ctrl-C at the
// prompt of another one.
func TestPasswordIsInterrupted(t *testing.T) {
	keyboard, terminal := openTerminal(t)
	s := Streams{In: terminal, Out: io.Discard, Err: io.Discard}
	if _, err := keyboard.WriteString("sesame\n"); err != nil {
		t.Fatal(err)
	}
	if secret, err := readPassword(t.Context(), s, ""); string(secret) != "sesame" || err != nil {
		t.Errorf("got %q, %v", secret, err)
	}

	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := readPassword(ctx, s, "")
		done <- err
	}()
	untilHidden(t, terminal)
	cancel()
	if err := <-done; !errors.Is(err, errInterrupted) {
		t.Errorf("got %v, want %v", err, errInterrupted)
	}
	if !shows(t, terminal) {
		t.Error("the terminal does not show what is typed")
	}
	// End the read left behind: it is of a number, which is soon that of another file.
	if _, err := keyboard.WriteString("\n"); err != nil {
		t.Error(err)
	}
	for stacks := make([]byte, 1<<20); bytes.Contains(stacks[:runtime.Stack(stacks, true)], []byte("x/term.")); {
		runtime.Gosched()
	}
}
