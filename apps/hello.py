"""The smallest application: `tafe serve apps.hello:app`."""

import tafe

app = tafe.App()


@app.get("/hello")
def hello() -> dict[str, str]:
    return {"message": "hello, world!"}
