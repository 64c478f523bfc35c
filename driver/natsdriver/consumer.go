package natsdriver

import (
	"context"
	"errors"

	"github.com/nats-io/nats.go/jetstream"
)

// This file reads what the server knows about the consumers of a stored topic.

// consumerInfo asks the server about a consumer. The error wraps
// jetstream.ErrConsumerNotFound if there is no such consumer.
func (t *stored) consumerInfo(ctx context.Context, name string) (info *jetstream.ConsumerInfo, err error) {
	err = t.conn.state.do(ctx, func(ctx context.Context) error {
		consumer, err := t.conn.api(ctx).Consumer(ctx, t.stream, name)
		if err != nil {
			return t.consumerError(ctx, err)
		}
		info = consumer.CachedInfo()
		return nil
	})
	return info, err
}

// consumerError classifies an error: whether the consumer may be available later.
func (t *stored) consumerError(ctx context.Context, err error) error {
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return t.absent(ctx, err)
	}
	return t.openError(ctx, err)
}

// filters returns the filter subjects of a consumer. A single one has a field of
// its own.
func filters(c *jetstream.ConsumerConfig) []string {
	if c.FilterSubject != "" {
		return []string{c.FilterSubject}
	}
	return c.FilterSubjects
}

// hasGiven reports whether a consumer has delivered everything up to seq. Its count
// of pending messages does not tell, because the server confirms that a message is
// stored before its consumers know of it.
func (t *stored) hasGiven(ctx context.Context, info *jetstream.ConsumerInfo, seq uint64) (bool, error) {
	if info.Delivered.Stream >= seq {
		return true, nil
	}
	request := struct {
		Seq     uint64 `json:"seq"`
		Subject string `json:"next_by_subj"`
	}{info.Delivered.Stream + 1, ">"}
	if subjects := filters(&info.Config); len(subjects) > 0 {
		request.Subject = subjects[0] // hark's consumers have at most one
	}
	var next struct {
		Message struct {
			Seq uint64 `json:"seq"`
		} `json:"message"`
	}
	err := t.conn.askAPI(ctx, "STREAM.MSG.GET."+t.stream, request, &next)
	if apiCode(err) == int(jetstream.JSErrCodeMessageNotFound) {
		return true, nil
	}
	return next.Message.Seq > seq, err
}
