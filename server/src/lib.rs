//! The SQLFlow job server.
