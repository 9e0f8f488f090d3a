// An OpenID Connect provider with the forms for development of its library, where any password is right.
//   node main.mjs OPTIONS.json
// Options: issuer; tls { port, cert, key }, for servers; port, without TLS, for browsers of tests; clients; users, by id.
import { readFileSync } from "node:fs";
import http from "node:http";
import https from "node:https";
import { Provider } from "oidc-provider";

const { issuer, tls, port, clients, users } = JSON.parse(readFileSync(process.argv[2], "utf8"));
const provider = new Provider(issuer, {
    clients,
    claims: { openid: ["sub"], email: ["email", "email_verified"], groups: ["groups"] },
    // Claims are in the ID token, as with most providers.
    conformIdTokenClaims: false,
    cookies: { keys: ["signs cookies of tests"] },
    findAccount: (_, id) => users[id] && { accountId: id, claims: () => ({ sub: id, ...users[id] }) },
});
provider.on("server_error", (_, error) => console.error(error));
const { cert, key } = { cert: readFileSync(tls.cert), key: readFileSync(tls.key) };
https.createServer({ cert, key }, provider.callback()).listen(tls.port, "127.0.0.1");
http.createServer(provider.callback()).listen(port, "127.0.0.1", () => console.log("ready"));
