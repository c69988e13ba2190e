"""The whole life of users and tokens with azure-communication-identity, unmodified.

Arguments: one JSON object with key, and either endpoint (the client is made by its constructor)
or connection_string; `async` true takes the asynchronous client. Prints one JSON object: what each
call gave, or "ErrorClass STATUS code" where it raised.
"""

import asyncio
import json
import sys
from datetime import timedelta

from azure.communication.identity import CommunicationIdentityClient
from azure.communication.identity.aio import CommunicationIdentityClient as AsyncClient
from azure.core.credentials import AzureKeyCredential
from azure.core.exceptions import HttpResponseError

errand = json.loads(sys.argv[1])
kind = AsyncClient if errand.get("async") else CommunicationIdentityClient
if "connection_string" in errand:
    client = kind.from_connection_string(errand["connection_string"])
else:
    client = kind(errand["endpoint"], AzureKeyCredential(errand["key"]))


async def call(name, *arguments, **named):
    """The result of a method of either client."""
    try:
        result = getattr(client, name)(*arguments, **named)
        if asyncio.iscoroutine(result):
            result = await result
        return result
    except HttpResponseError as error:
        code = error.error.code if error.error else None
        return f"{type(error).__name__} {error.status_code} {code}"


def token(result):
    """A token with its end, or the error."""
    return result if isinstance(result, str) else [result.token, result.expires_on]


async def life():
    told = {}
    user = await call("create_user")
    told["user"] = user.properties["id"]
    both = await call("create_user_and_token", ["chat"])
    told["other"], told["with_user"] = both[0].properties["id"], token(both[1])
    hours = timedelta(hours=1)
    both = await call("create_user_and_token", ["voip"], token_expires_in=hours)
    told["third"], told["with_third"] = both[0].properties["id"], token(both[1])
    told["first"] = token(await call("get_token", user, ["chat", "voip"]))
    told["hour"] = token(await call("get_token", user, ["chat"], token_expires_in=hours))
    for name, minutes in (("short", 59), ("long", 1441)):
        time = timedelta(minutes=minutes)
        told[name] = token(await call("get_token", user, ["chat"], token_expires_in=time))
    told["no_scopes"] = token(await call("get_token", user, []))
    told["bad_scope"] = token(await call("get_token", user, ["fax"]))
    told["revoked"] = await call("revoke_tokens", user)
    told["fresh"] = token(await call("get_token", user, ["chat"]))
    told["deleted"] = await call("delete_user", both[0])
    told["again"] = await call("delete_user", both[0])
    told["after"] = token(await call("get_token", both[0], ["chat"]))
    told["revoked_after"] = await call("revoke_tokens", both[0])
    told["teams"] = token(await call("get_token_for_teams_user", "aad", "client", "object"))
    closed = client.close() if hasattr(client, "close") else None
    if asyncio.iscoroutine(closed):
        await closed
    return told


print(json.dumps(asyncio.run(life())))
