//! Writing delivery status notifications (RFC 3464).
