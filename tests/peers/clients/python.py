"""Sends one file with Python's smtplib: host port mode ca user password from to file"""
import smtplib
import ssl
import sys

host, port, mode, ca, user, password, sender, recipient, path = sys.argv[1:]
with open(path, "rb") as file:
    content = file.read()
context = ssl.create_default_context(cafile=ca)
if mode == "implicit":
    smtp = smtplib.SMTP_SSL(host, int(port), timeout=60, context=context)
else:
    smtp = smtplib.SMTP(host, int(port), timeout=60)
with smtp:
    if mode in ("starttls", "auth"):
        smtp.starttls(context=context)
    if mode == "auth":
        smtp.login(user, password)
    smtp.ehlo_or_helo_if_needed()
    options = ["BODY=8BITMIME"] if smtp.has_extn("8bitmime") else []
    smtp.sendmail(sender, [recipient], content, mail_options=options)
