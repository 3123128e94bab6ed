ALTER TABLE aibridge_token_usages ADD COLUMN provider_usage TEXT;
