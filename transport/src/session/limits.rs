//! What a peer may ask of one session before it is ended: `reference/security.md`'s table, given to the HTTP/2 engine.

use std::time::Duration;

use http::HeaderMap;

/// The limits and windows of a session. The defaults are what ships.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Streams that a peer may have open at once; further ones wait at the peer.
    pub streams: u32,
    /// Bytes of one decoded header list.
    pub header_list: u32,
    /// Fields of one header list.
    pub header_fields: usize,
    /// Bytes of one field's value.
    pub header_value: usize,
    /// Streams that a peer has opened and reset before we took them; past it the session ends (rapid reset).
    pub pending_resets: usize,
    /// Streams that we had to reset because of the peer's errors; past it the session ends.
    pub local_resets: usize,
    /// Bytes of one stream that may be on the way unread.
    pub stream_window: u32,
    /// Bytes of all streams that may be on the way unread. Wide enough that a reader that stops does not stop its neighbours.
    pub connection_window: u32,
    /// The largest frame; 64 KiB costs bulk the least.
    pub frame: u32,
    /// Bytes that one stream buffers to be sent.
    pub send_buffer: usize,
    /// How often a session with streams in flight asks whether its peer is there.
    pub ping_every: Duration,
    /// How long the answer may take before the session counts as dead.
    pub ping_answer: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            streams: 100,
            header_list: 64 * 1024,
            header_fields: 128,
            header_value: 16 * 1024,
            pending_resets: 100,
            local_resets: 100,
            stream_window: 1 << 20,
            connection_window: 32 << 20,
            frame: 64 * 1024,
            send_buffer: 256 * 1024,
            ping_every: Duration::from_secs(2),
            ping_answer: Duration::from_secs(4),
        }
    }
}

impl Limits {
    /// Whether a header list keeps within the limits that the HTTP/2 engine does not know.
    #[must_use]
    pub fn allow(&self, headers: &HeaderMap) -> bool {
        headers.len() <= self.header_fields && headers.values().all(|value| value.len() <= self.header_value)
    }

    pub(super) fn client(&self) -> h2::client::Builder {
        let mut builder = h2::client::Builder::new();
        builder
            .enable_push(false)
            .max_header_list_size(self.header_list)
            .max_local_error_reset_streams(Some(self.local_resets))
            .max_pending_accept_reset_streams(self.pending_resets)
            .initial_window_size(self.stream_window)
            .initial_connection_window_size(self.connection_window)
            .max_frame_size(self.frame)
            .max_send_buffer_size(self.send_buffer);
        builder
    }

    pub(super) fn server(&self) -> h2::server::Builder {
        let mut builder = h2::server::Builder::new();
        builder
            .max_concurrent_streams(self.streams)
            .max_header_list_size(self.header_list)
            .max_local_error_reset_streams(Some(self.local_resets))
            .max_pending_accept_reset_streams(self.pending_resets)
            .initial_window_size(self.stream_window)
            .initial_connection_window_size(self.connection_window)
            .max_frame_size(self.frame)
            .max_send_buffer_size(self.send_buffer);
        builder
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn a_header_list_with_too_many_or_too_long_fields_is_not_allowed() {
        let limits = Limits { header_fields: 2, header_value: 4, ..Limits::default() };
        let mut headers = HeaderMap::new();
        headers.append("a", HeaderValue::from_static("1234"));
        assert!(limits.allow(&headers));
        headers.append("a", HeaderValue::from_static("12345"));
        assert!(!limits.allow(&headers));
        headers.remove("a");
        for _ in 0..3 {
            headers.append("a", HeaderValue::from_static("1"));
        }
        assert!(!limits.allow(&headers));
    }
}
