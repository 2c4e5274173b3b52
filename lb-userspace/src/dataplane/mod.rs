//! The only files that import aya: load, attach, pin, typed maps.
