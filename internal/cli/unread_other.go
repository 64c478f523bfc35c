//go:build !unix

package cli

import (
	"context"
	"io"
)

// whileRead does not notice here that nobody reads from w any more: the next write does.
func whileRead(ctx context.Context, _ io.Writer) (read context.Context, end func()) {
	return context.WithCancel(ctx)
}
