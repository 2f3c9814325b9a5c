//! The crash points of the API, between two effects each; see [`runtime::crash_points`].

pub(crate) use runtime::crash_points::{pass, pass_blocking};

runtime::crash_points! {
    pub(crate) enum Point {
        /// Kafka has acknowledged a request, and the client has no response yet.
        AfterProduceAcknowledged = "after-produce-acknowledged",
        /// A chunk of codes is committed.
        AfterLoadChunk = "after-load-chunk",
        /// A load is sealed and not announced yet.
        AfterLoadSealed = "after-load-sealed",
        /// A sealed load is about to be announced.
        BeforeAnnounce = "before-announce",
    }
}
