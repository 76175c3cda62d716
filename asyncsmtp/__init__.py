"""asyncsmtp: an asyncio SMTP client and bulk mailer."""
