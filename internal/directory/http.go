package directory

import (
	"context"
	"errors"
	"net/http"

	"golang.org/x/sync/errgroup"
)

// MediaType is that of an MLSMessage (RFC 9420, Section 17.10).
const MediaType = "message/mls"

// HTTP posts key packages to a URL, one in a request:
//
//	POST URL
//	Content-Type: message/mls
//	Idempotency-Key: "KeyPackageRef in hexadecimal"
//
// The body is an MLSMessage (RFC 9420, Section 6). Success is any 2xx; 409 means that the directory
// already has the key package, which is as good. After 429 and 503 the request is retried when
// Retry-After says so; after errors that may pass (408, 425, other 5xx, the network), it is retried
// after a while. Any other 4xx is final.
type HTTP struct{ *client }

// NewHTTP returns a client. It reads the files that o names.
func NewHTTP(o Options) (*HTTP, error) {
	c, err := newClient(o)
	if err != nil {
		return nil, err
	}
	return &HTTP{c}, nil
}

// Publish implements Publisher.
func (h *HTTP) Publish(ctx context.Context, items []Item) []error {
	errs := make([]error, len(items))
	var all errgroup.Group
	all.SetLimit(max(h.Concurrency, 1))
	for i := range items {
		all.Go(func() error {
			errs[i] = h.publish(ctx, &items[i])
			return nil
		})
	}
	_ = all.Wait() // each item has its own error
	return errs
}

func (h *HTTP) publish(ctx context.Context, item *Item) error {
	headers := map[string]string{"Idempotency-Key": `"` + item.Ref.String() + `"`}
	message := item.KeyPackage.Message()
	return retry(ctx, h.Deadline, func(ctx context.Context, _ int) error {
		_, err := h.do(ctx, http.MethodPost, h.URL, MediaType, message, headers)
		if status := (*StatusError)(nil); errors.As(err, &status) && status.Status == http.StatusConflict {
			return nil
		}
		return err
	})
}
