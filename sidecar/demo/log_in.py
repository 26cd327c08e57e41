"""What a person and a client do to get a token: a browser's part of a log-in, filled in over HTTP; code with PKCE."""

import base64
import hashlib
import re
import secrets
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import parse_qs, urlencode, urljoin, urlsplit

import aiohttp

MAX_STEPS: Final = 20
"""Pages and redirects from the client's link to its callback; there are about six."""

_FORM: Final = re.compile(r'action="(/interaction/[\w-]+/(login|consent))"')
_ALERT: Final = re.compile(r'role="alert">([^<]+)<')


class LoginFailed(Exception):
    """The authorization server did not let the person through; the text says where it stopped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Registered:
    """A client as the authorization server knows it."""

    client_id: str
    redirect_uri: str


async def fill_in(link: str, user: str, password: str) -> str:
    """Open a client's link as a browser would, log in, allow everything; return the address that the client is sent.

    Args:
        link: the authorization request.
        user: who logs in.
        password: what they type.

    Raises:
        LoginFailed: another page came than the two that a person is asked to fill in.
    """
    here = urlsplit(link)
    home = f"{here.scheme}://{here.netloc}"
    # unsafe: cookies of an address without a name, as 127.0.0.1 is.
    async with aiohttp.ClientSession(trust_env=False, cookie_jar=aiohttp.CookieJar(unsafe=True)) as browser:
        answer = browser.get(link, allow_redirects=False)
        for _ in range(MAX_STEPS):
            async with answer as response:
                if (onward := response.headers.get("Location")) is not None:
                    address = urljoin(str(response.url), onward)
                    if not address.startswith(f"{home}/"):
                        return address
                    answer = browser.get(address, allow_redirects=False)
                    continue
                page = await response.text()
                form = _FORM.search(page)
                alert = _ALERT.search(page)
                if form is None or alert is not None:
                    raise LoginFailed(f"status {response.status}: {alert[1] if alert else 'no form to fill in'}")
            typed = {"user": user, "password": password} if form[2] == "login" else {}
            answer = browser.post(f"{home}{form[1]}", data=typed, allow_redirects=False)
    raise LoginFailed("the pages lead in a circle")


async def tokens_of(
    issuer: str,
    client: Registered,
    who: tuple[str, str],
    *,
    resource: str,
    scopes: tuple[str, ...],
    proof: str | None = None,
) -> dict[str, Any]:
    """Return the answer of the token endpoint for a person who logs in: authorization code with PKCE.

    Args:
        issuer: the authorization server.
        client: a public client that is registered there.
        who: user and password.
        resource: what the token is for (RFC 8707).
        scopes: what the client asks for.
        proof: of possession of a key that the tokens are to be bound to (RFC 9449), for the token endpoint.

    Raises:
        LoginFailed: the person or the client is not let through.
    """
    verifier = secrets.token_urlsafe(48)
    digest = hashlib.sha256(verifier.encode()).digest()
    state = secrets.token_urlsafe(16)
    asked = {
        "response_type": "code",
        "client_id": client.client_id,
        "redirect_uri": client.redirect_uri,
        "scope": " ".join(scopes),
        "resource": resource,
        "state": state,
        "code_challenge_method": "S256",
        "code_challenge": base64.urlsafe_b64encode(digest).rstrip(b"=").decode(),
    }
    said = parse_qs(urlsplit(await fill_in(f"{issuer}/auth?{urlencode(asked)}", *who)).query)
    if said.get("state") != [state] or said.get("iss") != [issuer] or "code" not in said:
        raise LoginFailed(f"the client was sent {' '.join(said.get('error_description', ['something else']))}")
    form = {
        "grant_type": "authorization_code",
        "client_id": client.client_id,
        "redirect_uri": client.redirect_uri,
        "resource": resource,
        "code": said["code"][0],
        "code_verifier": verifier,
    }
    headers = {} if proof is None else {"DPoP": proof}
    async with (
        aiohttp.ClientSession(trust_env=False) as http,
        http.post(f"{issuer}/token", data=form, headers=headers) as response,
    ):
        answer: dict[str, Any] = await response.json()
        if response.status != 200:  # noqa: PLR2004 - OK
            raise LoginFailed(f"the token endpoint said {answer.get('error_description', answer.get('error'))}")
        return answer
