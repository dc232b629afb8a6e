package certificate

import (
	"fmt"
	"time"
)

// DaysLeft says how long a certificate lasts.
func DaysLeft(notAfter, now time.Time) string {
	left := notAfter.Sub(now)
	switch {
	case left < 0:
		return "it has expired"
	case left < 48*time.Hour:
		return fmt.Sprintf("%v left", left.Round(time.Minute))
	}
	return fmt.Sprintf("%d days left", int(left/(24*time.Hour)))
}
