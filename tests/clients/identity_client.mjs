// The life of users and tokens with @azure/communication-identity, unmodified.
//
// Arguments: one JSON object with connectionString, or endpoint and key. Prints one JSON object:
// what each call gave, or "ErrorName STATUS code" where it threw.

import { CommunicationIdentityClient } from "@azure/communication-identity";

const errand = JSON.parse(process.argv[2]);
const options = { allowInsecureConnection: true };
const client = errand.connectionString
  ? new CommunicationIdentityClient(errand.connectionString)
  : new CommunicationIdentityClient(errand.endpoint, { key: errand.key }, options);

async function attempt(call) {
  try {
    return await call();
  } catch (error) {
    return `${error.name} ${error.statusCode} ${error.code}`;
  }
}

function shown(result) {
  if (typeof result === "string") {
    return result;
  }
  const minutes = (result.expiresOn.getTime() - Date.now()) / 60000;
  return { token: result.token, minutes };
}

const told = {};
const user = await client.createUser();
told.user = user.communicationUserId;
const both = await client.createUserAndToken(["chat"], { tokenExpiresInMinutes: 90 });
told.other = both.user.communicationUserId;
told.withOther = shown(both);
told.first = shown(await client.getToken(user, ["chat", "voip"]));
told.hour = shown(await client.getToken(user, ["chat"], { tokenExpiresInMinutes: 60 }));
const short = { tokenExpiresInMinutes: 59 };
told.short = shown(await attempt(() => client.getToken(user, ["chat"], short)));
told.badScope = shown(await attempt(() => client.getToken(user, ["fax"])));
await client.revokeTokens(user);
told.fresh = shown(await client.getToken(user, ["chat"]));
await client.deleteUser(both.user);
told.after = shown(await attempt(() => client.getToken(both.user, ["chat"])));
const teams = { teamsUserAadToken: "t", clientId: "c", userObjectId: "o" };
told.teams = shown(await attempt(() => client.getTokenForTeamsUser(teams)));
console.log(JSON.stringify(told));
