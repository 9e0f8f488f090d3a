-- The key that encrypts the secret; NULL: none. An encrypted value is in hexadecimal digits.
ALTER TABLE secrets ADD COLUMN key_id TEXT;
