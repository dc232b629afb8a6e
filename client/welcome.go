package client

import (
	"context"
	"time"

	hsmkpv1 "github.com/hsm-kp/hsm-kp/api/hsmkp/v1"
)

// Reservation is a key package that a Welcome was opened with, until the member exists
// (Confirm) or is given up (Release), or the time is over.
type Reservation struct {
	Ref    []byte
	Digest []byte // names the Welcome
	Until  time.Time
}

// OpenWelcome opens a Welcome, for programs that make a member of the joiner_secret and the
// GroupInfo themselves. The same Welcome opens again while it is reserved.
func (c *Client) OpenWelcome(ctx context.Context, r *hsmkpv1.OpenWelcomeRequest) (*hsmkpv1.OpenWelcomeResponse, Reservation, error) {
	out, err := repeated(ctx, c, "open Welcome", c.api.OpenWelcome, r)
	if err != nil {
		return nil, Reservation{}, err
	}
	return out, Reservation{out.GetRef(), out.GetWelcomeDigest(), out.GetReservedUntil().AsTime()}, nil
}

// Confirm says that the member exists and is stored: the private init key is erased. That it was
// done before is no error; ErrState says that the reservation is over.
func (c *Client) Confirm(ctx context.Context, r Reservation) error {
	_, err := repeated(ctx, c, "confirm Welcome", c.api.ConfirmWelcome, &hsmkpv1.ConfirmWelcomeRequest{Ref: r.Ref, WelcomeDigest: r.Digest})
	return err
}

// Release gives the key package back: there is no member. It is asked
// for once: where no answer came and it is asked for again, ErrState says that it was done the first
// time, or that the reservation is over, and Get which of them.
func (c *Client) Release(ctx context.Context, r Reservation) error {
	_, err := once(ctx, c, "release Welcome", c.api.ReleaseWelcome, &hsmkpv1.ReleaseWelcomeRequest{Ref: r.Ref, WelcomeDigest: r.Digest})
	return err
}
