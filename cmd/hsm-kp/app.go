package main

import (
	"runtime/debug"
	"strings"

	"github.com/urfave/cli/v2"
)

// Categories order the verbs in --help.
const (
	categoryStart = "1. start"
	categoryMake  = "2. make"
	categoryKeep  = "3. keep"
	categoryLook  = "4. look"
	categoryHelp  = "5. help"
)

// defaultConfig is the config that is read if none is named. The current
// folder is never searched: a config names a module, and a module is code.
const defaultConfig = "/etc/hsm-kp/hsm-kp.yaml"

// configPath returns the config that is read, and whether the command line or the environment
// names it. An empty name counts as no name.
func configPath(c *cli.Context) (path string, named bool) {
	if path = c.String("config"); path == "" {
		return defaultConfig, false
	}
	return path, c.IsSet("config")
}

var jsonFlag = &cli.BoolFlag{Name: "json", Usage: "print JSON"}

var outFlag = &cli.StringFlag{Name: "out", Aliases: []string{"o"}, Usage: "write public parts to `DIR`/REF.mls"}

// forceLogin is the option that sends a PIN at the risk of locking the token.
const forceLogin = "force-login"

// newApp describes the whole command line.
func newApp(u *ui) *cli.App {
	app := &cli.App{
		Name:                 "hsm-kp",
		Usage:                "sign MLS key packages with a key that never leaves its token",
		UsageText:            "hsm-kp [--config FILE] COMMAND [OPTIONS] [ARGUMENTS]",
		Version:              version(),
		Reader:               u.in,
		Writer:               u.out,
		ErrWriter:            u.errOut,
		EnableBashCompletion: true,
		HideHelpCommand:      true,
		// Commas belong to names and URIs; flags that may be repeated are repeated.
		DisableSliceFlagSeparator: true,
		Suggest:                   true,
		Description: `hsm-kp makes key packages (RFC 9420) whose signature key lives in a PKCS#11 token
and whose HPKE private keys are sealed under another key of that token.

Try it without an HSM:
   hsm-kp demo
   hsm-kp init --softhsm ~/hsm-kp && export HSM_KP_CONFIG=~/hsm-kp/hsm-kp.yaml
   hsm-kp identity create alice
   hsm-kp generate --identity alice --count 1000 --out spool/

Exit status: 0 done, 1 it failed or a key package is invalid, 2 usage or
configuration, 3 the token could not be used.`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "config", Aliases: []string{"c"}, EnvVars: []string{"HSM_KP_CONFIG"}, Usage: "read the configuration from `FILE`", Value: defaultConfig},
			&cli.BoolFlag{Name: forceLogin, Usage: "send the PIN even if the token says that it received a wrong one before"},
			&cli.StringFlag{Name: "store", EnvVars: []string{"HSM_KP_STORE"}, Usage: "use the store at `URL` instead of the config's", DefaultText: "the config's"},
		},
		Commands: []*cli.Command{
			initCommand(u), doctorCommand(u), configCommand(u), demoCommand(u),
			identityCommand(u), generateCommand(u), provisionCommand(u),
			listCommand(u), showCommand(u), exportCommand(u), publishCommand(u), replenishCommand(u), claimCommand(u), unwrapCommand(u), welcomeCommand(u), decryptCommand(u), handoverCommand(u), serveCommand(u),
			wrapKeyCommand(u), sweepCommand(u), auditCommand(u), storeCommand(u),
			inspectCommand(u), verifyCommand(u), benchCommand(u),
			completionCommand(u), manCommand(u),
		},
		Action: func(c *cli.Context) error {
			return showHelp(c)
		},
		// Errors are printed and turned into an exit status in one place: run.
		ExitErrHandler: func(*cli.Context, error) {},
	}
	setUsageErrors(app)
	return app
}

// showHelp answers a command line without a command: `hsm-kp`, `hsm-kp help` and
// `hsm-kp help COMMAND`; any other word is a mistake.
func showHelp(c *cli.Context) error {
	switch word := c.Args().First(); {
	case word == "help" && c.NArg() > 1:
		return cli.ShowCommandHelp(c, c.Args().Get(1))
	case word == "" || word == "help":
		return cli.ShowAppHelp(c)
	default:
		for _, near := range c.App.Commands {
			if strings.HasPrefix(near.Name, word) || strings.HasPrefix(word, near.Name) {
				return usagef("there is no command %q; did you mean %q?", word, near.Name)
			}
		}
		return usagef("there is no command %q", word)
	}
}

// setUsageErrors makes each fault that the library finds in a command line a
// usageError. Otherwise the library prints the help.
func setUsageErrors(app *cli.App) {
	app.OnUsageError = onUsageError
	var visit func([]*cli.Command)
	visit = func(commands []*cli.Command) {
		for _, c := range commands {
			c.OnUsageError = onUsageError
			c.HideHelpCommand = true
			visit(c.Subcommands)
		}
	}
	visit(app.Commands)
}

func onUsageError(c *cli.Context, err error, _ bool) error {
	name := "hsm-kp"
	if c.Command != nil && c.Command.HelpName != "" {
		name = c.Command.HelpName
	}
	return usagef("%s: %v", name, err)
}

// release is set by the linker if the build has a release number.
var release string

// version names the build: the release or, if there is none, what the Go tool chain knows.
func version() string {
	if release != "" {
		return release
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(devel)"
}
