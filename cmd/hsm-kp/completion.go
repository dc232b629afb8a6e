package main

import (
	"fmt"
	"os"

	"github.com/urfave/cli/v2"
)

func completionCommand(u *ui) *cli.Command {
	return &cli.Command{
		Name:      "completion",
		Category:  categoryHelp,
		Usage:     "print a shell's completion script",
		ArgsUsage: "bash|zsh|fish",
		Description: `Examples:
   source <(hsm-kp completion bash)
   hsm-kp completion zsh >"${fpath[1]}/_hsm-kp"
   hsm-kp completion fish >~/.config/fish/completions/hsm-kp.fish`,
		Action: func(c *cli.Context) error {
			if err := wantArgs(c, "SHELL"); err != nil {
				return err
			}
			script, err := completionScript(c.App, c.Args().First())
			if err != nil {
				return err
			}
			u.printf("%s", script)
			return nil
		},
	}
}

func completionScript(app *cli.App, shell string) (string, error) {
	switch shell {
	case "bash":
		return bashCompletion, nil
	case "zsh":
		return zshCompletion, nil
	case "fish":
		return app.ToFishCompletion()
	}
	return "", usagef("completion: %q is not bash, zsh or fish", shell)
}

// completeValues completes the values of a flag, and flags as the library does.
func completeValues(flag string, values ...string) cli.BashCompleteFunc {
	return func(c *cli.Context) {
		if n := len(os.Args); n < 2 || os.Args[n-2] != flag { // the last argument is --generate-bash-completion
			cli.DefaultCompleteWithFlags(c.Command)(c)
			return
		}
		for _, v := range values {
			fmt.Fprintln(c.App.Writer, v)
		}
	}
}

// Both scripts query the program, which prints one word a line if the
// last argument is --generate-bash-completion.
const bashCompletion = `# bash completion for hsm-kp
_hsm_kp() {
  local word=${COMP_WORDS[COMP_CWORD]} ask
  ask=("${COMP_WORDS[@]:0:COMP_CWORD}")
  [[ $word == -* ]] && ask+=("${word/#--/-}")
  COMPREPLY=($(compgen -W "$("${ask[@]}" --generate-bash-completion 2>/dev/null)" -- "$word"))
  [[ ${#COMPREPLY[@]} -eq 0 ]] && COMPREPLY=($(compgen -f -- "$word"))
}
complete -o filenames -F _hsm_kp hsm-kp
`

const zshCompletion = `#compdef hsm-kp
_hsm_kp() {
  local word=${words[CURRENT]}
  local -a ask answers
  ask=("${(@)words[1,CURRENT-1]}")
  [[ $word == -* ]] && ask+=("$word")
  answers=("${(@f)$("${ask[@]}" --generate-bash-completion 2>/dev/null)}")
  if [[ -n ${answers[1]} ]]; then
    compadd -- "${(@)answers%%:*}"
  else
    _files
  fi
}
compdef _hsm_kp hsm-kp
`
