//! Header views, checksums and the rewrites.
