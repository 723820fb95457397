// A certified OpenID Provider (npm oidc-provider) for the tests: one client, a few people, no passwords.
//
// usage: node oidc_provider.mjs '{"client_id": …, "client_secret": …, "redirect_uris": […],
//                                 "post_logout_redirect_uris": […]}'
//
// Listens on a free port of 127.0.0.1, prints "READY <issuer>", and ends when its standard input
// does, so that it never outlives the test that started it.
import { generateKeyPairSync, randomBytes } from 'node:crypto';
import { createServer } from 'node:http';

import Provider from 'oidc-provider';

const PEOPLE = {
  alice: { groups: ['admins', 'developers'] },
  bob: { groups: ['developers'] },
  mallory: { groups: [] },
  trudy: { groups: ['admins'], email: 'alice@example.com', email_verified: false },
};

function accountOf(login) {
  const person = PEOPLE[login];
  if (!person) return undefined;
  return {
    accountId: login,
    claims: () => ({
      sub: login, name: login, email: `${login}@example.com`, email_verified: true, ...person,
    }),
  };
}

function configuration(client) {
  const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
  return {
    clients: [{ ...client, grant_types: ['authorization_code', 'refresh_token'], response_types: ['code'] }],
    jwks: { keys: [{ ...privateKey.export({ format: 'jwk' }), use: 'sig', alg: 'RS256' }] },
    cookies: { keys: [randomBytes(32).toString('hex')] },
    claims: { openid: ['sub'], email: ['email', 'email_verified'], profile: ['name'], groups: ['groups'] },
    scopes: ['openid', 'email', 'profile', 'groups', 'offline_access'],
    // Claims in the id token itself, as Google, Okta and Azure do.
    conformIdTokenClaims: false,
    pkce: { required: () => true },
    findAccount: (_ctx, login) => accountOf(login),
    loadExistingGrant: async (ctx) => {
      const grant = new ctx.oidc.provider.Grant({
        clientId: ctx.oidc.client.clientId, accountId: ctx.oidc.session.accountId,
      });
      grant.addOIDCScope('openid email profile groups offline_access');
      await grant.save();
      return grant;
    },
    interactions: { url: (_ctx, interaction) => `/interaction/${interaction.uid}` },
    features: {
      devInteractions: { enabled: false },
      rpInitiatedLogout: {
        enabled: true,
        logoutSource: (ctx, form) => {
          ctx.body = `<!doctype html><title>Sign out</title>${form}`
            + '<button type="submit" form="op.logoutForm" name="logout" value="yes">Sign out</button>';
        },
      },
    },
    renderError: (ctx, out) => { ctx.type = 'html'; ctx.body = `<!doctype html><title>Error</title><p>${out.error}`; },
    ttl: {
      AccessToken: 600, AuthorizationCode: 60, Grant: 3600, IdToken: 600, Interaction: 600,
      RefreshToken: 3600, Session: 3600,
    },
  };
}

async function interact(provider, request, response) {
  if (request.method === 'GET') {
    const buttons = Object.keys(PEOPLE).map((login) => `<button name="login" value="${login}">${login}</button>`);
    response.setHeader('Content-Type', 'text/html; charset=utf-8');
    response.end(`<!doctype html><title>Sign in</title><form method="post">${buttons.join(' ')}</form>`);
    return;
  }
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  const login = new URLSearchParams(Buffer.concat(chunks).toString()).get('login');
  await provider.interactionFinished(request, response, { login: { accountId: login } });
}

const server = createServer();
server.listen(0, '127.0.0.1', () => {
  const issuer = `http://127.0.0.1:${server.address().port}`;
  const provider = new Provider(issuer, configuration(JSON.parse(process.argv[2])));
  const oidc = provider.callback();
  server.on('request', (request, response) => {
    if (!request.url.startsWith('/interaction/')) {
      oidc(request, response);
      return;
    }
    interact(provider, request, response).catch((error) => {
      response.statusCode = 400;
      response.end(String(error));
    });
  });
  process.stdout.write(`READY ${issuer}\n`);
});
process.stdin.resume();
process.stdin.on('end', () => process.exit(0));
