use std::sync::{Mutex, MutexGuard};

/// Locks a mutex whose holders do not panic.
///
/// # Panics
/// A holder did.
pub fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("nobody panics while holding the lock")
}
