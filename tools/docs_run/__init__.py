"""`make docs-run`: the commands that the documents show are run.

Every fenced block of the languages `console`, `sh`, `bash` and `shell` in README.md, docs/*.md and charts/*/README.md carries a mark, an HTML
comment right before it, which no reader sees:

    <!-- run: local -->              a shell of its own, in a fresh clone, with a fresh data directory; no cluster
    <!-- run: cluster -->            the same with the local cluster's `kubectl`, on which the chart is installed; only with --cluster
    <!-- run: continue -->           the shell of the block before
    <!-- excused: the reason -->     not run; at most ten in all

A `run` may go on with `, timeout SECONDS` (of each command), `, exit CODE` (of the last command), and `, until TEXT`: the last command goes on in
the background as soon as its output shows TEXT, and ends with its shell. A block without a mark fails the run, so a new one is noticed.

In a `console` block, lines that begin with `$ ` are commands and the others are what they print: each of these must be found in the
output, in this order, where `...` stands for anything, blanks for any blanks, and numbers for any numbers, but in a line that is
nothing but a number. Other blocks are commands only.

Lexing is markdown-it's, so what counts as a block is what CommonMark says. Tools that run sessions in Markdown exist (tesh, Sybil, mdsh); none knows
excuses that are counted, blocks that only a cluster can run, or servers that stay for the blocks after.
"""
