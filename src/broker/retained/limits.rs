//! How much may be retained, and how a message beyond it is refused.

/// What the index may grow to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetainedLimits {
    /// Topics with a retained message.
    pub messages_max: usize,
    /// Bytes of topics and bodies.
    pub bytes_max: usize,
    /// Topics whose message comes from one identity.
    pub publisher_messages_max: usize,
    /// Bytes of topics and bodies from one identity.
    pub publisher_bytes_max: usize,
}

impl Default for RetainedLimits {
    /// 100,000 messages, 256 MiB; of one publisher 100 and 1 MiB (SEC-41).
    fn default() -> RetainedLimits {
        RetainedLimits {
            messages_max: 100_000,
            bytes_max: 256 << 20,
            publisher_messages_max: 100,
            publisher_bytes_max: 1 << 20,
        }
    }
}

/// A limit that a message would pass: reason code 0x97 for its PUBLISH, and it is not retained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RetainedFull {
    /// [`RetainedLimits::messages_max`].
    #[error("{0} topics have a retained message, as many as may: clear some or raise the limit")]
    Messages(usize),
    /// [`RetainedLimits::bytes_max`].
    #[error("retained messages would take {0} bytes, too many: clear some or raise the limit")]
    Bytes(usize),
    /// [`RetainedLimits::publisher_messages_max`].
    #[error("this client retains messages on {0} topics, as many as it may: clear some")]
    PublisherMessages(usize),
    /// [`RetainedLimits::publisher_bytes_max`].
    #[error("this client's retained messages would take {0} bytes, too many: clear some")]
    PublisherBytes(usize),
}
