"""The page of Swagger UI: this folder's files and the few lines that join them. It needs nothing from elsewhere."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from mosec_cy._config.plan import HTML, PNG, SCRIPT, STYLE, TEXT, Resource

# Links are relative, so that the page also works where a proxy serves it below another path. The policy has the browser
# refuse any other origin; Swagger UI sets style attributes, and shows and offers answers as blob: and data: URLs.
_PAGE = b"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'self'; style-src 'self' 'unsafe-inline'; \
img-src 'self' blob: data:; media-src 'self' blob: data:; object-src 'none'; base-uri 'none'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Swagger UI</title>
<link rel="icon" type="image/png" href="favicon-32x32.png">
<link rel="stylesheet" href="swagger-ui.css">
</head>
<body>
<div id="swagger-ui"></div>
<script src="swagger-ui-bundle.js"></script>
<script src="start.js"></script>
</body>
</html>
"""
# Without `validatorUrl: null` the description would be sent to a validator on the internet.
_START = b"""SwaggerUIBundle({
  url: "../metadata.json",
  dom_id: "#swagger-ui",
  presets: [SwaggerUIBundle.presets.apis],
  deepLinking: true,
  validatorUrl: null,
});
"""
# What a redirect would do, were there one: the relative links need the slash at the end.
_TO_PAGE = b"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="refresh" content="0; url=swagger/">
<link rel="icon" type="image/png" href="swagger/favicon-32x32.png">
<title>Swagger UI</title>
</head>
<body><a href="swagger/">Swagger UI</a></body>
</html>
"""
_FILES = {
    "swagger-ui-bundle.js": SCRIPT,
    "swagger-ui.css": STYLE,
    "favicon-32x32.png": PNG,
    "swagger-ui-bundle.js.LICENSE.txt": TEXT,
}


def resource(path: str) -> Resource | None:
    """What lies at `path` below the place of the page ("": without a slash, "/": the page); None: nothing."""
    if path == "":
        return Resource(_TO_PAGE, HTML)
    if path == "/":
        return Resource(_PAGE, HTML)
    if path == "/start.js":
        return Resource(_START, SCRIPT)
    slash, name = path[:1], path[1:]
    return Resource(_read(name), _FILES[name]) if slash == "/" and name in _FILES else None


@cache
def _read(name: str) -> bytes:
    return (Path(__file__).parent / name).read_bytes()
