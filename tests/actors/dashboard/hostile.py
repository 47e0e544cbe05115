"""Texts from outside that would act on a page, a terminal or a log, if they were more than text there."""

HOSTILE = (
    "<img src=x onerror=alert(1)>",
    "</script><script>alert(1)</script>",
    "<!--",
    "]]>",
    "{{7*7}} ${7*7} `x`",
    "javascript:alert(1)",
    "'; DROP TABLE accounts; --",
    '" onmouseover="alert(1)',
    "&lt;b&gt;&#x27;",
    "\x1b[31mred\x1b[0m",
    "\x1b]8;;http://evil.example\x07link\x1b]8;;\x07",
    "a\r\n\r\nevent: update\ndata: {}",
    "a\u2028b\u2029c",
    "\u202egnp.exe\u202c",
    "zero\u200bwidth\ufeff",
    "nul\x00 bell\x07 del\x7f",
    "\ud83d\ude00 \U0001f4a9",
    "[bold red]markup[/]",
    "=HYPERLINK(1)",
    "x" * 100_000,
)
