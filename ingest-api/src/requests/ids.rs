//! Request ids: minted here, shown to clients with a tag that only the API can make.
//!
//! A client sees `<canonical>.<suffix>`: the canonical id, as in records, rows and responses, and a suffix that proves
//! that the API issued the id, to which user, and (for an id from an Idempotency-Key, which does not grow with time)
//! when. So "pending" and "never existed" are distinguished without a lookup, and no client can read another user's
//! request. The tag is not part of the identity: its key can be rotated.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use coupon_core::ids::RequestId;
use hmac::{Hmac, Mac as _};
use rand::Rng as _;
use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};

type Tag = [u8; 8];

/// The scope of an Idempotency-Key: the same key in another scope is another request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scope<'a> {
    /// The token's subject.
    pub(crate) caller: &'a str,
    /// The user of the request.
    pub(crate) user: &'a str,
    /// The kind of request.
    pub(crate) operation: &'a str,
    /// The whole target, normalised.
    pub(crate) target: &'a str,
    /// The partition of the request.
    pub(crate) partition: i32,
    /// The key itself.
    pub(crate) key: &'a str,
}

/// An id that was just minted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Minted {
    /// The canonical id.
    pub(crate) id: RequestId,
    /// When, by this process' clock, in unix milliseconds.
    pub(crate) at_ms: i64,
    /// The id with its suffix, for the client.
    pub(crate) shown: String,
}

/// An id whose suffix is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Verified {
    /// The canonical id.
    pub(crate) id: RequestId,
    /// When it was minted, in unix milliseconds.
    pub(crate) at_ms: i64,
    owner: Tag,
}

/// Mints and verifies request ids.
pub(crate) struct RequestIds {
    mac: Hmac<Sha256>,
}

impl std::fmt::Debug for RequestIds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RequestIds")
    }
}

impl RequestIds {
    /// Tags are made with this secret, which all instances share.
    pub(crate) fn new(secret: &SecretString) -> Self {
        let secret = secret.expose_secret().as_bytes();
        Self { mac: Hmac::new_from_slice(secret).expect("HMAC takes keys of any length") }
    }

    /// Mints an id that grows with time (UUIDv7), for a request without a key.
    pub(crate) fn mint(&self, user: &str, now_ms: i64) -> Minted {
        let mut random = [0_u8; 16];
        rand::rng().fill_bytes(&mut random[6..]);
        random[..6].copy_from_slice(&six_bytes(now_ms));
        random[6] = 0x70 | (random[6] & 0x0f);
        random[8] = 0x80 | (random[8] & 0x3f);
        self.show(RequestId { identity: u128::from_be_bytes(random), body: 0 }, user, now_ms)
    }

    /// Mints the id of an Idempotency-Key: the same on any instance, at any time.
    pub(crate) fn mint_keyed(&self, scope: &Scope<'_>, body: &str, now_ms: i64) -> Minted {
        let mut digest = Sha256::new();
        let partition = scope.partition.to_be_bytes();
        let parts = [scope.caller, scope.user, scope.operation, scope.target].map(str::as_bytes);
        for part in parts.into_iter().chain([partition.as_slice(), scope.key.as_bytes()]) {
            // Length-prefixed, so that two different scopes never have the same bytes.
            digest.update((part.len() as u64).to_be_bytes());
            digest.update(part);
        }
        let identity = u128::from_be_bytes(first(&digest.finalize()));
        let body = i64::from_be_bytes(first(&Sha256::digest(body.as_bytes()))) & i64::MAX;
        // 0 means "no key".
        self.show(RequestId { identity, body: body.max(1) }, scope.user, now_ms)
    }

    /// Verifies an id from a client; `None` for an id that the API did not issue.
    pub(crate) fn verify(&self, shown: &str) -> Option<Verified> {
        let (canonical, suffix) = shown.split_once('.')?;
        let id = RequestId::parse(canonical).ok()?;
        let mut bytes = [0_u8; 24];
        let length = URL_SAFE_NO_PAD.decode_slice(suffix, &mut bytes).ok()?;
        let at_ms = if id.is_keyed() {
            from_six_bytes(&bytes[..6])
        } else {
            bytes.copy_within(..16, 6);
            from_six_bytes(&id.identity.to_be_bytes()[..6])
        };
        if length != if id.is_keyed() { 22 } else { 16 } {
            return None;
        }
        let owner = first(&bytes[6..14]);
        self.tag_input(id, at_ms, owner).verify_truncated_left(&bytes[14..22]).ok()?;
        Some(Verified { id, at_ms, owner })
    }

    /// Whether the id was issued to this user.
    pub(crate) fn belongs_to(&self, verified: &Verified, user: &str) -> bool {
        self.owner_input(user).verify_truncated_left(&verified.owner).is_ok()
    }

    /// Shows a stored id to its user. For an id from a key, whose minting time is not stored, the time of the decision
    /// takes its place.
    pub(crate) fn show_stored(&self, id: RequestId, user: &str, decided_ms: i64) -> String {
        let minted_ms = from_six_bytes(&id.identity.to_be_bytes()[..6]);
        self.show(id, user, if id.is_keyed() { decided_ms } else { minted_ms }).shown
    }

    fn show(&self, id: RequestId, user: &str, at_ms: i64) -> Minted {
        let owner: Tag = first(&self.owner_input(user).finalize().into_bytes());
        let tag: Tag = first(&self.tag_input(id, at_ms, owner).finalize().into_bytes());
        let mut suffix = [0_u8; 22];
        suffix[..6].copy_from_slice(&six_bytes(at_ms));
        suffix[6..14].copy_from_slice(&owner);
        suffix[14..].copy_from_slice(&tag);
        let shown_suffix = if id.is_keyed() { &suffix[..] } else { &suffix[6..] };
        let mut shown = String::with_capacity(64);
        shown.push_str(&id.to_string());
        shown.push('.');
        URL_SAFE_NO_PAD.encode_string(shown_suffix, &mut shown);
        Minted { id, at_ms, shown }
    }

    fn owner_input(&self, user: &str) -> Hmac<Sha256> {
        let mut mac = self.mac.clone();
        mac.update(b"user");
        mac.update(user.as_bytes());
        mac
    }

    fn tag_input(&self, id: RequestId, at_ms: i64, owner: Tag) -> Hmac<Sha256> {
        let mut mac = self.mac.clone();
        mac.update(b"id");
        mac.update(&id.identity.to_be_bytes());
        mac.update(&id.body.to_be_bytes());
        mac.update(&at_ms.to_be_bytes());
        mac.update(&owner);
        mac
    }
}

fn first<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[..N]);
    out
}

fn six_bytes(ms: i64) -> [u8; 6] {
    let [_, _, six @ ..] = ms.to_be_bytes();
    six
}

fn from_six_bytes(bytes: &[u8]) -> i64 {
    bytes.iter().fold(0, |ms, byte| ms << 8 | i64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_763_000_000_123;

    fn ids() -> RequestIds {
        RequestIds::new(&SecretString::from("one secret"))
    }

    fn scope<'a>() -> Scope<'a> {
        Scope { caller: "ann", user: "ann", operation: "claim", target: "spring", partition: 3, key: "k" }
    }

    #[test]
    fn an_issued_id_proves_its_age_and_its_user() {
        for minted in [ids().mint("ann", NOW), ids().mint_keyed(&scope(), "{}", NOW)] {
            let verified = ids().verify(&minted.shown).expect("an issued id");
            assert_eq!((verified.id, verified.at_ms), (minted.id, NOW));
            assert!(ids().belongs_to(&verified, "ann"));
            assert!(!ids().belongs_to(&verified, "bob"));
            assert!(RequestIds::new(&SecretString::from("other")).verify(&minted.shown).is_none());
        }
    }

    #[test]
    fn an_id_from_a_row_is_shown_in_a_form_that_its_user_can_send() {
        let unkeyed = ids().mint("ann", NOW);
        assert_eq!(ids().show_stored(unkeyed.id, "ann", NOW + 50), unkeyed.shown);
        let keyed = ids().mint_keyed(&scope(), "{}", NOW).id;
        let verified = ids().verify(&ids().show_stored(keyed, "ann", NOW + 50)).expect("an issued id");
        assert_eq!((verified.id, verified.at_ms), (keyed, NOW + 50));
        assert!(ids().belongs_to(&verified, "ann") && !ids().belongs_to(&verified, "bob"));
    }

    #[test]
    fn an_id_that_was_altered_anywhere_is_rejected() {
        for shown in [ids().mint("ann", NOW).shown, ids().mint_keyed(&scope(), "{}", NOW).shown] {
            for position in 0..shown.len() {
                let mut altered = shown.clone().into_bytes();
                altered[position] = if altered[position] == b'A' { b'B' } else { b'A' };
                let altered = String::from_utf8(altered).expect("still text");
                assert!(ids().verify(&altered).is_none(), "{altered}");
                assert!(ids().verify(&shown[..position]).is_none());
            }
            assert!(ids().verify(&format!("{shown}A")).is_none());
        }
    }

    #[test]
    fn a_key_gives_the_same_id_again_and_another_one_wherever_its_scope_differs() {
        let id = |scope: Scope<'_>, body: &str, at| ids().mint_keyed(&scope, body, at).id;
        let one = id(scope(), "{}", NOW);
        assert_eq!(id(scope(), "{}", NOW + 5_000), one);
        let other_body = id(scope(), "{\"code\":\"A\"}", NOW);
        assert_eq!(other_body.identity, one.identity);
        assert_ne!(other_body.body, one.body);
        for other in [
            Scope { caller: "shop", ..scope() },
            Scope { user: "bob", ..scope() },
            Scope { operation: "lock", ..scope() },
            Scope { target: "summer", ..scope() },
            Scope { partition: 4, ..scope() },
            Scope { key: "l", ..scope() },
            Scope { caller: "an", user: "nann", ..scope() },
        ] {
            assert_ne!(id(other, "{}", NOW).identity, one.identity, "{other:?}");
        }
    }

    #[test]
    fn ids_without_a_key_grow_with_time() {
        let earlier = ids().mint("ann", NOW).id.identity;
        let later = ids().mint("ann", NOW + 1).id.identity;
        assert!(earlier < later);
    }
}
