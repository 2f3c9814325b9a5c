// The rush: users come at their own pace, whatever becomes of those before (open model), and want one code each of one
// coupon, while others look at its page.
//
// CODES (500), RATE of claims a second (200), SECONDS (10), LOOKS at the page a second (50)
import exec from 'k6/execution';
import { as, makeCoupon, number, outcome, settled, soldOut, toOutcome, unresolved, won } from './lib/stampede.js';
import { summary } from './lib/report.js';

const CODES = number('CODES', 500);
const RATE = number('RATE', 200);
const SECONDS = number('SECONDS', 10);
const LOOKS = number('LOOKS', 50);
const WINNERS = Math.min(CODES, RATE * SECONDS);

const open = (rate, run, vus) => ({
  executor: 'constant-arrival-rate',
  exec: run,
  rate,
  timeUnit: '1s',
  duration: `${SECONDS}s`,
  preAllocatedVUs: vus,
  maxVUs: 20 * vus,
  gracefulStop: '90s',
});

export const handleSummary = summary('Stampede: flash sale');
export const options = {
  scenarios: { looks: open(LOOKS, 'look', 20), rush: open(RATE, 'claim', 200) },
  thresholds: {
    won: [`count==${WINNERS}`],
    unresolved: ['count==0'],
    miscounted: ['count==0'],
    // Else this generator, and not Stampede, was the bottleneck.
    dropped_iterations: ['count==0'],
    http_req_failed: ['rate==0'],
    // Loose: this machine does everything at once.
    claim_to_outcome: ['p(95)<30000'],
  },
};

export const setup = () => makeCoupon(CODES);

export function look(coupon) {
  as('user', 'window-shopper').get('/v1/coupons/{id}', `/v1/coupons/${coupon}`);
}

export function claim(coupon) {
  const user = as('user', `rush-${exec.scenario.iterationInTest}`);
  const path = `/v1/coupons/${coupon}/claims?wait=20`;
  const begun = Date.now();
  // Without an Idempotency-Key, so that the sold-out gate may answer. Who hears nothing asks again, and may then be told
  // that they have their code already.
  let reply = user.tryPost('…/claims', path, {});
  const asked = reply;
  if (reply.status !== 200 && reply.status !== 202 && reply.status !== 409) reply = user.post('…/claims', path, {});
  const said = reply.status === 409 ? { status: 'rejected', reason: 'sold_out' } : outcome(user, reply);
  toOutcome.add(Date.now() - begun);
  const has = said !== null && said.reason === 'user_limit_reached' && asked !== reply
    && user.get('/v1/users/me/codes', '/v1/users/me/codes').json().items.length === 1;
  const winner = said !== null && (said.status === 'accepted' || has);
  const loser = said !== null && said.reason === 'sold_out';
  won.add(winner ? 1 : 0);
  soldOut.add(loser ? 1 : 0);
  unresolved.add(winner || loser ? 0 : 1);
}

export const teardown = (coupon) => settled(coupon, { available: CODES - WINNERS, claimed: WINNERS, generated: CODES });
