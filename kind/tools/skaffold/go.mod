module shield.hx-citadel.io/kind/skaffold

go 1.26.0

require github.com/GoogleContainerTools/skaffold/v2 v2.13.2
