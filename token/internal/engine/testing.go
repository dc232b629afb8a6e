package engine

import "github.com/miekg/pkcs11"

// What follows is for the tests of package token; nothing else calls it.

// Intercept has every call of miekg/pkcs11 to the module at path go through what wrap returns,
// and none be made through onecall, until restore is called. crypto11's calls are not
// intercepted.
func Intercept(path string, wrap func(Cryptoki) Cryptoki) (restore func(), err error) {
	m, err := loadModule(path)
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	real, one := m.api, m.one
	m.api, m.one = wrap(real), nil
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.api, m.one = real, one
	}, nil
}

// Raw returns the calls of the module at path.
func Raw(path string) (Cryptoki, error) {
	m, err := loadModule(path)
	if err != nil {
		return nil, err
	}
	return m.api, nil
}

// Handle returns the session's handle, for Raw.
func (s *Session) Handle() pkcs11.SessionHandle { return s.handle }

// ForgetRefusals makes this process forget the PINs that were refused, as a new one has.
func ForgetRefusals(path string) error {
	m, err := loadModule(path)
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	clear(m.refused)
	return nil
}
