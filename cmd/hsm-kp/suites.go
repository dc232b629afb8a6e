package main

import (
	"errors"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/config"
)

// loadConfig reads a config and registers the experimental suites that it
// enables.
func loadConfig(path string) (*config.Config, error) {
	cfg, err := config.Load(path)
	if err != nil {
		return nil, err
	}
	return cfg, registerSuites(cfg)
}

func registerSuites(cfg *config.Config) error {
	if !cfg.Experimental.Enabled {
		return nil
	}
	var faults []error
	for i, s := range cfg.Experimental.Suites {
		err := ciphersuite.Register(ciphersuite.Experiment{
			ID: ciphersuite.ID(s.Number), Name: s.Name, KEM: s.KEM, AEAD: s.AEAD, Hash: s.Hash, Signature: s.Signature,
		})
		if err != nil {
			faults = append(faults, usagef("experimental.suites[%d]: %v", i, err))
		}
	}
	return errors.Join(faults...)
}

// knowSuites registers the experimental suites of a config, if one is named, for a command that
// needs no config. It only warns of a config that cannot be read.
func knowSuites(path string, named bool, u *ui) {
	if !named {
		return
	}
	if _, err := loadConfig(path); err != nil {
		u.warnf("no experimental cipher suites are known: %v", err)
	}
}
