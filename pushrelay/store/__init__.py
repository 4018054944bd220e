"""Publications: numbered, stored, handed out in order, replayed."""
