package postgres

import (
	"testing"

	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/internal/store/postgres/postgrestest"
	"github.com/hsm-kp/hsm-kp/internal/store/storetest"
)

func openAt(tb testing.TB, url string) *Store {
	tb.Helper()
	s, err := Open(tb.Context(), url, Options{Create: true})
	if err != nil {
		tb.Fatalf("Open() err = %v, want nil", err)
	}
	tb.Cleanup(func() { s.Close() })
	return s
}

func TestSuite(t *testing.T) {
	server := postgrestest.Shared(t)
	storetest.Run(t, func(t *testing.T) (store.Store, func() store.Store) {
		url := server.Database(t)
		return openAt(t, url), func() store.Store { return openAt(t, url) }
	})
}
