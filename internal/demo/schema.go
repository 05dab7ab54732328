package demo

// tables are the replicated tables in the order in which they are compared and shown.
var tables = [...]string{"users", "identities", "sessions", "subscriptions", "admin_settings"}

// accountSchema is the schema of an account service: what one finds in the field, triggers
// that rewrite version and updated_at included.
const accountSchema = `
CREATE FUNCTION public.set_updated_at() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN NEW.updated_at := now(); RETURN NEW; END $$;

CREATE FUNCTION public.maintain_email_verified() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN NEW.email_verified := (NEW.email_verified_at IS NOT NULL); RETURN NEW; END $$;

CREATE FUNCTION public.bump_version() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN NEW.version := COALESCE(OLD.version, 0) + 1; RETURN NEW; END $$;

CREATE TABLE public.users (
  uuid uuid PRIMARY KEY DEFAULT gen_random_uuid(),
  username text NOT NULL,
  password text NOT NULL,
  email text,
  role text NOT NULL DEFAULT 'user',
  level integer NOT NULL DEFAULT 20,
  groups jsonb NOT NULL DEFAULT '[]',
  permissions jsonb NOT NULL DEFAULT '[]',
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now(),
  version bigint NOT NULL DEFAULT 0,
  origin_node text NOT NULL DEFAULT 'local',
  mfa_totp_secret text,
  mfa_enabled boolean NOT NULL DEFAULT false,
  mfa_secret_issued_at timestamptz,
  mfa_confirmed_at timestamptz,
  email_verified_at timestamptz,
  email_verified boolean GENERATED ALWAYS AS (email_verified_at IS NOT NULL) STORED
);
CREATE UNIQUE INDEX users_username_lower_uk ON public.users (lower(username));
CREATE UNIQUE INDEX users_email_lower_uk ON public.users (lower(email)) WHERE email IS NOT NULL;

CREATE TABLE public.identities (
  uuid uuid PRIMARY KEY DEFAULT gen_random_uuid(),
  provider text NOT NULL,
  external_id text NOT NULL,
  user_uuid uuid NOT NULL REFERENCES public.users (uuid) ON DELETE CASCADE,
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now(),
  version bigint NOT NULL DEFAULT 0,
  origin_node text NOT NULL DEFAULT 'local',
  CONSTRAINT identities_provider_external_id_uk UNIQUE (provider, external_id)
);
CREATE INDEX idx_identities_user_uuid ON public.identities (user_uuid);

CREATE TABLE public.sessions (
  uuid uuid PRIMARY KEY DEFAULT gen_random_uuid(),
  token text NOT NULL,
  expires_at timestamptz NOT NULL,
  user_uuid uuid NOT NULL REFERENCES public.users (uuid) ON DELETE CASCADE,
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now(),
  version bigint NOT NULL DEFAULT 0,
  origin_node text NOT NULL DEFAULT 'local',
  CONSTRAINT sessions_token_uk UNIQUE (token)
);
CREATE INDEX idx_sessions_user_uuid ON public.sessions (user_uuid);

CREATE TABLE public.admin_settings (
  uuid uuid PRIMARY KEY DEFAULT gen_random_uuid(),
  module_key text NOT NULL,
  role text NOT NULL,
  enabled boolean NOT NULL DEFAULT false,
  version bigint NOT NULL DEFAULT 1,
  origin_node text NOT NULL DEFAULT 'local',
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT admin_settings_module_role_uk UNIQUE (module_key, role)
);
CREATE INDEX idx_admin_settings_version ON public.admin_settings (version);

CREATE TABLE public.subscriptions (
  uuid uuid PRIMARY KEY DEFAULT gen_random_uuid(),
  user_uuid uuid NOT NULL REFERENCES public.users (uuid) ON DELETE CASCADE,
  provider text NOT NULL,
  payment_method text NOT NULL DEFAULT 'paypal',
  kind text NOT NULL DEFAULT 'subscription',
  plan_id text,
  external_id text NOT NULL,
  status text NOT NULL DEFAULT 'pending',
  payment_qr text,
  meta jsonb NOT NULL DEFAULT '{}',
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now(),
  cancelled_at timestamptz,
  CONSTRAINT subscriptions_user_external_uk UNIQUE (user_uuid, external_id)
);
CREATE INDEX idx_subscriptions_user_uuid ON public.subscriptions (user_uuid);
CREATE INDEX idx_subscriptions_status ON public.subscriptions (status);

CREATE TRIGGER trg_users_bump_version BEFORE UPDATE ON public.users FOR EACH ROW EXECUTE FUNCTION public.bump_version();
CREATE TRIGGER trg_users_maintain_email_verified BEFORE INSERT OR UPDATE ON public.users FOR EACH ROW EXECUTE FUNCTION public.maintain_email_verified();
CREATE TRIGGER trg_users_set_updated_at BEFORE UPDATE ON public.users FOR EACH ROW EXECUTE FUNCTION public.set_updated_at();
CREATE TRIGGER trg_identities_bump_version BEFORE UPDATE ON public.identities FOR EACH ROW EXECUTE FUNCTION public.bump_version();
CREATE TRIGGER trg_identities_set_updated_at BEFORE UPDATE ON public.identities FOR EACH ROW EXECUTE FUNCTION public.set_updated_at();
CREATE TRIGGER trg_sessions_bump_version BEFORE UPDATE ON public.sessions FOR EACH ROW EXECUTE FUNCTION public.bump_version();
CREATE TRIGGER trg_sessions_set_updated_at BEFORE UPDATE ON public.sessions FOR EACH ROW EXECUTE FUNCTION public.set_updated_at();
CREATE TRIGGER trg_admin_settings_bump_version BEFORE UPDATE ON public.admin_settings FOR EACH ROW EXECUTE FUNCTION public.bump_version();
CREATE TRIGGER trg_admin_settings_set_updated_at BEFORE UPDATE ON public.admin_settings FOR EACH ROW EXECUTE FUNCTION public.set_updated_at();
CREATE TRIGGER trg_subscriptions_set_updated_at BEFORE UPDATE ON public.subscriptions FOR EACH ROW EXECUTE FUNCTION public.set_updated_at();
`

// pgcrypto is part of the account service's schema but comes in a separate package on some
// systems; nothing here needs it (gen_random_uuid is built in).
const pgcryptoIfAvailable = `DO $$ BEGIN
  IF EXISTS (SELECT FROM pg_available_extensions WHERE name = 'pgcrypto') THEN CREATE EXTENSION IF NOT EXISTS pgcrypto; END IF;
END $$`

// AccountSchema is the schema of the demo's tables, for tests that want one from the field.
func AccountSchema() string { return accountSchema }
