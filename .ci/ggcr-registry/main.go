// The registry of go-containerregistry, as `crane registry serve` has it, but with the referrers API switched on: crane
// has no flag for it, and the other registries that can be had as real parts do not have that API.
package main

import (
	"flag"
	"log"
	"net/http"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"
)

func main() {
	address := flag.String("address", "127.0.0.1:5000", "where to listen")
	disk := flag.String("disk", "", "the folder of the blobs; manifests are kept in memory")
	flag.Parse()
	handler := registry.New(
		registry.WithReferrersSupport(true),
		registry.WithBlobHandler(registry.NewDiskBlobHandler(*disk)),
	)
	server := &http.Server{Addr: *address, Handler: handler, ReadHeaderTimeout: 5 * time.Second}
	log.Fatal(server.ListenAndServe())
}
