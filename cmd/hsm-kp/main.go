// Command hsm-kp signs MLS key packages (RFC 9420) with a key that never
// leaves a PKCS#11 token, and keeps their HPKE private keys sealed under
// another.
//
// Each file is one verb. app.go describes the command line, ui.go owns all
// printing, hints.go says what a person can do about an error.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"os/user"
	"slices"
	"syscall"

	"github.com/hsm-kp/hsm-kp/internal/store"
)

func main() {
	// The first signal requests an orderly end; stop then hands signals back
	// to the runtime, so that a second one ends the process at once.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	// A reader that closes the pipe is an error like any other: the current work
	// must complete first.
	signal.Ignore(syscall.SIGPIPE)
	os.Exit(run(ctx, os.Args, newUI(os.Stdin, os.Stdout, os.Stderr)))
}

// run executes one command line and returns the exit status.
func run(ctx context.Context, args []string, u *ui) int {
	err := execute(ctx, args, u)
	if err != nil {
		u.fail(err)
	}
	return exitStatus(err)
}

// execute executes one command line.
func execute(ctx context.Context, args []string, u *ui) error {
	if completing(args) && slices.Contains(args, "--") {
		return nil // the library would read the question as an argument and execute the command
	}
	app := newApp(u)
	args, err := intersperse(app, args)
	if err != nil {
		return err
	}
	if err := app.RunContext(store.WithActor(ctx, actor()), args); err != nil {
		return err
	}
	return u.flush()
}

// actor returns the name of the user who runs the command.
func actor() string {
	if u, err := user.Current(); err == nil && u.Username != "" {
		return "user:" + u.Username
	}
	return fmt.Sprintf("uid:%d", os.Getuid())
}
