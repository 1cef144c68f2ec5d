// Says whether a Grafana dashboard is one by the published schema, of which the Foundation SDK has the types.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/cog/plugins"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
)

func check(file string) error {
	raw, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	// The error of a strict reading is never nil: it has a list, which is empty if all is well. What is read that way has
	// no panels, so it is read once more for its values.
	var strict, whole dashboard.Dashboard
	var problems cog.BuildErrors
	if err := strict.UnmarshalJSONStrict(raw); err != nil && !(errors.As(err, &problems) && len(problems) == 0) {
		return err
	}
	if err := json.Unmarshal(raw, &whole); err != nil {
		return err
	}
	return whole.Validate()
}

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: dashboard-check FILE")
		os.Exit(2)
	}
	plugins.RegisterDefaultPlugins()
	if err := check(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
