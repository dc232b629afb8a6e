package integrations

import "testing"

func TestTSMLS(t *testing.T) {
	t.Parallel()
	s := start(t, "1", "2", "3", "4", "5", "6", "7")
	runIn(t, "ts-mls", s.environment(),
		[]string{"npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"},
		[]string{"npm", "test"},
		[]string{"node", "dist/example/hello.js", s.recorded, nameOf("1")},
	)
	s.checkNoKeys(t)
	s.checkTrail(t, "FramedContentTBS", "LeafNodeTBS", "GroupInfoTBS")
}
