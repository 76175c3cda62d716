SET statement_timeout = 0;
SET lock_timeout = 0;
SET idle_in_transaction_session_timeout = 0;
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SELECT pg_catalog.set_config('search_path', '', false);
SET check_function_bodies = false;
SET xmloption = content;
SET client_min_messages = warning;
SET row_security = off;
CREATE SCHEMA asyncsmtp;
SET default_tablespace = '';
SET default_table_access_method = heap;
CREATE TABLE asyncsmtp.campaign (
    id bigint NOT NULL,
    name text NOT NULL,
    secret text,
    created_us bigint,
    config text,
    held text
);
ALTER TABLE asyncsmtp.campaign ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME asyncsmtp.campaign_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE asyncsmtp.delivery (
    campaign_id bigint NOT NULL,
    batch_no integer NOT NULL,
    seq bigint NOT NULL,
    state smallint DEFAULT 0 NOT NULL,
    epoch integer DEFAULT 0 NOT NULL,
    attempts smallint DEFAULT 0 NOT NULL,
    doubts smallint DEFAULT 0 NOT NULL,
    code smallint,
    status text,
    reply text,
    host text,
    next_us bigint,
    first_us bigint,
    updated_us bigint,
    CONSTRAINT delivery_state_check CHECK (((state >= 0) AND (state <= 6)))
)
WITH (fillfactor='50');
CREATE TABLE asyncsmtp.lease (
    campaign_id bigint NOT NULL,
    epoch integer NOT NULL,
    owner text NOT NULL,
    commits bigint DEFAULT 0 NOT NULL,
    at_us bigint NOT NULL
)
WITH (fillfactor='50');
CREATE TABLE asyncsmtp.memory (
    campaign_id bigint NOT NULL,
    name text NOT NULL,
    value text NOT NULL
);
CREATE TABLE asyncsmtp.recipient (
    campaign_id bigint NOT NULL,
    batch_no integer NOT NULL,
    seq bigint NOT NULL,
    address text,
    dedupe text,
    message_id text,
    vars text NOT NULL
);
CREATE TABLE asyncsmtp.version (
    number integer NOT NULL
);
INSERT INTO asyncsmtp.campaign OVERRIDING SYSTEM VALUE VALUES (1, 'news', '6e63f16c171806fdafdd73b3d430d47a6d0774444d89ac77321f0ec517a5171d', 1795875761526627, '{"parts": {"column email": "82244417f956ac7c599f191593f7e441a4fafa20a4158fd52e154f1dc4c8ed92", "from": "84f743984d0289d0a77c9c3b2b1b526a61bde27a295a788e025d15134df3d707", "message.txt": "0617f1ef201275ad7a8020ebb6f5b7ebfa9655367fddc2a9ab3e894e468d4448", "people.csv": "5089d0e125aa8d151b8e0b1f9aa18fc3bc2de708f903b2320e602540c567a77d", "reply_to": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", "subject": "442d8d0dac130b9f46cc2f813b8013cded1cdb4c29b8a5f74276e34fa72274c9"}}', NULL);
INSERT INTO asyncsmtp.delivery VALUES (1, 0, 7, 0, 0, 0, 0, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO asyncsmtp.delivery VALUES (1, 0, 8, 0, 0, 0, 0, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO asyncsmtp.delivery VALUES (1, 0, 9, 0, 0, 0, 0, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO asyncsmtp.delivery VALUES (1, 0, 10, 0, 0, 0, 0, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO asyncsmtp.delivery VALUES (1, 0, 11, 0, 0, 0, 0, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO asyncsmtp.delivery VALUES (1, 0, 12, 0, 0, 0, 0, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO asyncsmtp.delivery VALUES (1, 0, 13, 0, 0, 0, 0, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO asyncsmtp.delivery VALUES (1, 0, 14, 0, 0, 0, 0, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO asyncsmtp.delivery VALUES (1, 0, 15, 0, 0, 0, 0, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO asyncsmtp.delivery VALUES (1, 0, 16, 0, 0, 0, 0, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO asyncsmtp.delivery VALUES (1, 0, 4, 4, 1, 1, 0, 550, '5.1.1', '5.1.1 no such user token-3-', '127.0.0.1:37253', NULL, 1795875761615453, 1795875761615453);
INSERT INTO asyncsmtp.delivery VALUES (1, 0, 2, 2, 1, 1, 0, 250, '2.0.0', '2.0.0 queued as token-2-', '127.0.0.1:37253', NULL, 1795875761589511, 1795875761615505);
INSERT INTO asyncsmtp.delivery VALUES (1, 0, 6, 1, 1, 1, 0, NULL, NULL, NULL, NULL, NULL, 1795875761685231, 1795875761685231);
INSERT INTO asyncsmtp.delivery VALUES (1, 0, 5, 2, 1, 1, 0, 250, '2.0.0', '2.0.0 queued as token-4-', '127.0.0.1:37253', NULL, 1795875761615496, 1795875761685270);
INSERT INTO asyncsmtp.delivery VALUES (1, 0, 3, 1, 1, 1, 0, NULL, NULL, NULL, NULL, NULL, 1795875761875910, 1795875761875910);
INSERT INTO asyncsmtp.delivery VALUES (1, 0, 1, 2, 1, 1, 0, 250, '2.0.0', '2.0.0 queued as token-1-', '127.0.0.1:37253', NULL, 1795875761579403, 1795875761875976);
INSERT INTO asyncsmtp.lease VALUES (1, 1, 'mailer.example, process 4711', 5, 1795875761874936);
INSERT INTO asyncsmtp.recipient VALUES (1, 0, 1, 'somebody1@example.com', 'somebody1@example.com', 'lcv2meevwxqcezhcxse3kekxnw@example.org', '{"email": "somebody1@example.com", "name": "Name 1", "city": "Wien"}');
INSERT INTO asyncsmtp.recipient VALUES (1, 0, 2, 'somebody2@example.com', 'somebody2@example.com', 'ay2wcgn3c3vvavxr36h5r47ac3@example.org', '{"email": "somebody2@example.com", "name": "Name 2", "city": "Graz"}');
INSERT INTO asyncsmtp.recipient VALUES (1, 0, 3, 'somebody3@example.net', 'somebody3@example.net', 'whpq2dnaru3ccg5y6rqil5fcfd@example.org', '{"email": "somebody3@example.net", "name": "Name 3", "city": "Wien"}');
INSERT INTO asyncsmtp.recipient VALUES (1, 0, 4, 'nobody4@example.com', 'nobody4@example.com', 'oezjockfhkeqmfgndk5oxggi7u@example.org', '{"email": "nobody4@example.com", "name": "Name 4", "city": "Graz"}');
INSERT INTO asyncsmtp.recipient VALUES (1, 0, 5, 'somebody5@example.com', 'somebody5@example.com', 'zstcwlmddxuf4ymhn4mrrgutcm@example.org', '{"email": "somebody5@example.com", "name": "Name 5", "city": "Wien"}');
INSERT INTO asyncsmtp.recipient VALUES (1, 0, 6, 'somebody6@example.net', 'somebody6@example.net', '6t4fq2g6hh25saj2qjyfdcyjtv@example.org', '{"email": "somebody6@example.net", "name": "Name 6", "city": "Graz"}');
INSERT INTO asyncsmtp.recipient VALUES (1, 0, 7, 'somebody7@example.com', 'somebody7@example.com', 'akl2muf567oreonfmhhfvfbtkt@example.org', '{"email": "somebody7@example.com", "name": "Name 7", "city": "Wien"}');
INSERT INTO asyncsmtp.recipient VALUES (1, 0, 8, 'somebody8@example.com', 'somebody8@example.com', 'ot3nrtmkeww3zr6s7tqxebba3c@example.org', '{"email": "somebody8@example.com", "name": "Name 8", "city": "Graz"}');
INSERT INTO asyncsmtp.recipient VALUES (1, 0, 9, 'nobody9@example.net', 'nobody9@example.net', 's3bt24gtnre2pmnlbzcyswqjie@example.org', '{"email": "nobody9@example.net", "name": "Name 9", "city": "Wien"}');
INSERT INTO asyncsmtp.recipient VALUES (1, 0, 10, 'somebody10@example.com', 'somebody10@example.com', 'dwwkg4mwzzbmajij2dy6xmbjyb@example.org', '{"email": "somebody10@example.com", "name": "Name 10", "city": "Graz"}');
INSERT INTO asyncsmtp.recipient VALUES (1, 0, 11, 'somebody11@example.com', 'somebody11@example.com', 'ul5e2ubpupanzteco3bykxdvpc@example.org', '{"email": "somebody11@example.com", "name": "Name 11", "city": "Wien"}');
INSERT INTO asyncsmtp.recipient VALUES (1, 0, 12, 'somebody12@example.net', 'somebody12@example.net', 'ot2rpqudg4lz6jkw37hohn37on@example.org', '{"email": "somebody12@example.net", "name": "Name 12", "city": "Graz"}');
INSERT INTO asyncsmtp.recipient VALUES (1, 0, 13, 'somebody13@example.com', 'somebody13@example.com', 'sbn6qng6r4aewz5nbypywrcvl2@example.org', '{"email": "somebody13@example.com", "name": "Name 13", "city": "Wien"}');
INSERT INTO asyncsmtp.recipient VALUES (1, 0, 14, 'somebody14@example.com', 'somebody14@example.com', 'ofp3ybpz2hf3cjeomgb75dsvzm@example.org', '{"email": "somebody14@example.com", "name": "Name 14", "city": "Graz"}');
INSERT INTO asyncsmtp.recipient VALUES (1, 0, 15, 'somebody15@example.net', 'somebody15@example.net', 'o2sk3wq3reddtowm6qowhw4tl4@example.org', '{"email": "somebody15@example.net", "name": "Name 15", "city": "Wien"}');
INSERT INTO asyncsmtp.recipient VALUES (1, 0, 16, 'somebody16@example.com', 'somebody16@example.com', 'f3mjngpfivj62z57fxlfk5uhvh@example.org', '{"email": "somebody16@example.com", "name": "Name 16", "city": "Graz"}');
INSERT INTO asyncsmtp.version VALUES (1);
SELECT pg_catalog.setval('asyncsmtp.campaign_id_seq', 1, true);
ALTER TABLE ONLY asyncsmtp.campaign
    ADD CONSTRAINT campaign_name_key UNIQUE (name);
ALTER TABLE ONLY asyncsmtp.campaign
    ADD CONSTRAINT campaign_pkey PRIMARY KEY (id);
ALTER TABLE ONLY asyncsmtp.delivery
    ADD CONSTRAINT delivery_pkey PRIMARY KEY (campaign_id, batch_no, seq);
ALTER TABLE ONLY asyncsmtp.lease
    ADD CONSTRAINT lease_pkey PRIMARY KEY (campaign_id);
ALTER TABLE ONLY asyncsmtp.memory
    ADD CONSTRAINT memory_pkey PRIMARY KEY (campaign_id, name);
ALTER TABLE ONLY asyncsmtp.recipient
    ADD CONSTRAINT recipient_campaign_id_dedupe_key UNIQUE (campaign_id, dedupe);
ALTER TABLE ONLY asyncsmtp.recipient
    ADD CONSTRAINT recipient_pkey PRIMARY KEY (campaign_id, batch_no, seq);
CREATE INDEX due ON asyncsmtp.delivery USING btree (campaign_id, next_us) WHERE (next_us IS NOT NULL);
