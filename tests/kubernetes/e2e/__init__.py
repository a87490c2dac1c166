"""The whole product on a whole cluster, as its users meet it: manifests applied with kubectl, tools called by an MCP client."""
