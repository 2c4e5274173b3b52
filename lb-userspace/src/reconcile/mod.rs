//! Plan (pure difference) and apply (map writes in the safe order).
