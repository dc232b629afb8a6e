package audit

import (
	"fmt"
	"iter"
	"slices"
	"strings"
)

// A key for checkpoints is announced in the trail when it is made. So who believes one key
// comes to believe the next: a checkpoint that the one before signed is over the entry that
// names it.

const keyDetail = "audit key "

// KeyDetail is the Detail of the entry, whose Act is Created, that says which key signs
// checkpoints from then on.
func KeyDetail(verifierKey string) string { return keyDetail + verifierKey }

// AnnouncedKey returns the verifier key that an entry announces.
func (e *Entry) AnnouncedKey() (verifierKey string, ok bool) {
	key, ok := strings.CutPrefix(e.Detail, keyDetail)
	if !ok || e.Act != Created || CheckVerifierKey(key) != nil {
		return "", false
	}
	return key, true
}

// Announcement is a key for checkpoints that the trail names.
type Announcement struct {
	Sequence    uint64 // of the entry
	VerifierKey string
}

// Announcements reads the keys that a trail names. Whether these are its entries is for
// Verify to say.
func Announcements(entries iter.Seq2[Stored, error]) (all []Announcement, err error) {
	for _, err := range Announced(entries, &all) {
		if err != nil {
			return nil, fmt.Errorf("read the keys that the trail names: %w", err)
		}
	}
	return all, nil
}

// Announced yields entries as they are and adds to all the keys that they name.
func Announced(entries iter.Seq2[Stored, error], all *[]Announcement) iter.Seq2[Stored, error] {
	return func(yield func(Stored, error) bool) {
		for stored, err := range entries {
			if err == nil {
				if e, fault := ParseEntry(stored.Bytes); fault == nil {
					if key, ok := e.AnnouncedKey(); ok {
						*all = append(*all, Announcement{e.Sequence, key})
					}
				}
			}
			if !yield(stored, err) {
				return
			}
		}
	}
}

// OpenAll opens notes with the keys that are believed, and with those that come to be
// believed by them: a key that is announced later than a believed one is, once a note that
// the latter signed is a checkpoint over the announcement. Those before are not: they may
// have been replaced for a reason. The result has a place for each note, which is nil where
// no believed key signed it.
//
// What it goes by holds if Verify finds that the checkpoints are those of the trail which
// the announcements were read from.
func OpenAll(notes [][]byte, keys []string, announced []Announcement) []*Checkpoint {
	opened := make([]*Checkpoint, len(notes))
	believed := make(map[string]bool)
	for queue := slices.Clone(keys); len(queue) > 0; queue = queue[1:] {
		key := queue[0]
		if believed[key] {
			continue
		}
		believed[key] = true
		over := openWith(notes, key, opened)
		at := slices.IndexFunc(announced, func(a Announcement) bool { return a.VerifierKey == key })
		for _, a := range announced[at+1:] {
			if a.Sequence < over {
				queue = append(queue, a.VerifierKey)
			}
		}
	}
	return opened
}

// openWith opens the notes that a key has signed, and returns how many entries the largest
// of them is over.
func openWith(notes [][]byte, key string, opened []*Checkpoint) (over uint64) {
	for i, note := range notes {
		c, err := Open(note, key)
		if err != nil {
			continue
		}
		over = max(over, c.Size)
		if opened[i] == nil {
			opened[i] = &c
		}
	}
	return over
}
