"""`shield rollout`: a new MCP server gets its share of traffic by and by, and loses it by itself when it is worse.

Helm alone owns the weights. The canary is judged against the stable servers beside it, by the same recording rules that alert, so what hurts both is
no verdict against the new one. `judge` decides, purely; `evidence` asks Prometheus; `golden` asks both the same questions; `helm` moves the
weight and takes everything back; `steps` is the loop that joins them, and `journal` keeps every decision.
"""
