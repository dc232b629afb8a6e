package client

import (
	"context"
	"time"

	hsmkpv1 "github.com/hsm-kp/hsm-kp/api/hsmkp/v1"
)

// Reservation is a key package that is reserved for the Welcome that was opened with it, until
// the member exists (Confirm), is given up (Release), or the time ends.
type Reservation struct {
	Ref    []byte    // KeyPackageRef
	Digest []byte    // of the Welcome
	Until  time.Time // when the reservation ends
}

// OpenWelcome opens a Welcome, for programs that make the member from the joiner_secret and the
// GroupInfo themselves. The response has secrets, which it prints. The same Welcome opens again
// while the key package is reserved for it.
func (c *Client) OpenWelcome(ctx context.Context, r *hsmkpv1.OpenWelcomeRequest) (*hsmkpv1.OpenWelcomeResponse, Reservation, error) {
	out, err := repeated(ctx, c, "open Welcome", c.api.OpenWelcome, r)
	if err != nil {
		return nil, Reservation{}, err
	}
	return out, Reservation{out.GetRef(), out.GetWelcomeDigest(), out.GetReservedUntil().AsTime()}, nil
}

// Confirm tells the service that the member exists and is stored. The service erases the private
// init key. Confirming again is no error. The error wraps ErrState if the reservation has ended.
func (c *Client) Confirm(ctx context.Context, r Reservation) error {
	_, err := repeated(ctx, c, "confirm Welcome", c.api.ConfirmWelcome, &hsmkpv1.ConfirmWelcomeRequest{Ref: r.Ref, WelcomeDigest: r.Digest})
	return err
}

// Release gives the key package back if there is no member. It is not repeated: if you repeat it
// after ErrNoAnswer, ErrState means that the first call did it or that the reservation has ended,
// and Get tells which.
func (c *Client) Release(ctx context.Context, r Reservation) error {
	_, err := once(ctx, c, "release Welcome", c.api.ReleaseWelcome, &hsmkpv1.ReleaseWelcomeRequest{Ref: r.Ref, WelcomeDigest: r.Digest})
	return err
}
