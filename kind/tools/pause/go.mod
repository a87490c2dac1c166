module shield.hx-citadel.io/kind/pause

go 1.26.0
