package hark

import (
	"fmt"
	"reflect"
	"runtime"
	"strings"

	"github.com/harkbus/hark/internal/symbol"
)

// FuncName returns the name under which RegisterFunc registers f, without the
// ID. Pass it to Notify to reach the listeners of f by a name that the compiler
// checks. The part before the # reaches everything of its type. For
//
//	a method        (*Counter).OnIncrement or c.OnIncrement    counter.Counter#OnIncrement
//	a function      OnIncrement                                counter#OnIncrement
//	a closure       made in (*Counter).Start                   counter.Counter#Start:func1
//
// The package is the last element of its import path that is not a major
// version; pointers and type arguments leave no trace. A method promoted from
// an embedded type belongs to that type, unless it is written as a method
// expression of the outer one. A closure is named by the compiler, after a
// function it was made in, or into which that was inlined: the name may change
// with any change to the program, so give a closure that is to be notified by
// name one of its own, with Register.
//
// If f is not a function, or was made by package reflect and so has no name,
// FuncName returns ErrInvalidOption.
func FuncName(f any) (string, error) {
	owner, member, err := funcName(f)
	if err != nil {
		return "", fail("name of function", "", err)
	}
	return join(owner, member), nil
}

func funcName(f any) (owner, member string, err error) {
	v := reflect.ValueOf(f)
	if !v.IsValid() || v.Kind() != reflect.Func || v.IsNil() {
		return "", "", fmt.Errorf("%w: %T: want a function", ErrInvalidOption, f)
	}
	text := runtime.FuncForPC(v.Pointer()).Name()
	if strings.HasPrefix(text, "reflect.makeFuncStub") || strings.HasPrefix(text, "reflect.methodValueCall") {
		return "", "", fmt.Errorf("%w: a function made by package reflect has no name; register it with Register", ErrInvalidOption)
	}
	owner, member = symbol.Split(text)
	if _, err := parseName(join(owner, member)); err != nil {
		return "", "", err
	}
	return owner, member, nil
}
