package broker

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/harkbus/hark/driver"
	"github.com/harkbus/hark/driver/natsdriver"
	"github.com/harkbus/hark/internal/names"
)

// refusal is the reason why an HTTP request was refused, in the form of RFC 9457.
// All error answers have this form.
type refusal struct {
	Status int    `json:"status" doc:"the status of the response"`
	Title  string `json:"title" doc:"what the status means"`
	Detail string `json:"detail" doc:"what is wrong"`
	Hint   string `json:"hint,omitempty" doc:"what to do about it"`
}

// refusalType is the media type of a refusal.
const refusalType = "application/problem+json"

// Error implements error.
func (r *refusal) Error() string {
	if r.Hint != "" {
		return r.Detail + "; " + r.Hint
	}
	return r.Detail
}

// refused returns an error that is answered with a status and an explanation.
func refused(status int, format string, args ...any) *refusal {
	return &refusal{Status: status, Title: http.StatusText(status), Detail: fmt.Sprintf(format, args...)}
}

// but adds advice on what to do.
func (r *refusal) but(format string, args ...any) *refusal {
	r.Hint = fmt.Sprintf(format, args...)
	return r
}

// write answers a request with the refusal.
func (r *refusal) write(rw http.ResponseWriter) {
	h := rw.Header()
	h.Set("Content-Type", refusalType)
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	rw.WriteHeader(r.Status)
	if text, err := appendJSONLine(nil, r); err == nil { // a refusal can always be encoded
		_, _ = rw.Write(text) // the client may have gone
	}
}

// refuse answers a request with a refusal.
func refuse(rw http.ResponseWriter, status int, detail string) {
	refused(status, "%s", detail).write(rw)
}

// refusalOf returns the answer to an error. known is false for an unforeseen error,
// which belongs in the log.
func refusalOf(err error) (r *refusal, known bool) {
	var tooLarge *http.MaxBytesError
	var name *names.Error
	switch {
	case errors.As(err, &r):
		return r, true
	case errors.As(err, &tooLarge):
		return refused(http.StatusRequestEntityTooLarge, "the body is longer than %d bytes", tooLarge.Limit), true
	case errors.As(err, &name):
		return refused(http.StatusBadRequest, "%s", nameFault(err)), true
	}
	for _, k := range []struct {
		kind   error
		status int
	}{
		{natsdriver.ErrNotFound, http.StatusNotFound},
		{natsdriver.ErrListening, http.StatusConflict},
		{natsdriver.ErrTooManySubscriptions, http.StatusServiceUnavailable},
		{driver.ErrUnsupported, http.StatusNotImplemented},
		{driver.ErrConflict, http.StatusConflict},
		{driver.ErrFull, http.StatusInsufficientStorage},
		{driver.ErrUnsure, http.StatusServiceUnavailable},
		{natsdriver.ErrPartlyMoved, http.StatusServiceUnavailable},
		{driver.ErrAgain, http.StatusServiceUnavailable},
		{driver.ErrClosed, http.StatusServiceUnavailable},
		{context.DeadlineExceeded, http.StatusGatewayTimeout},
		{context.Canceled, http.StatusServiceUnavailable},
	} {
		if errors.Is(err, k.kind) {
			return refused(k.status, "%s", err), true
		}
	}
	return refused(http.StatusInternalServerError, "the broker has failed").but("its log says why"), false
}
