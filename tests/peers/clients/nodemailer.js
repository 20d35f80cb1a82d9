// Sends one file with nodemailer: host port mode ca user password from to file
const fs = require("fs");
const nodemailer = require("nodemailer");

const [host, port, mode, ca, user, pass, from, to, path] = process.argv.slice(2);
const transport = nodemailer.createTransport({
  host,
  port: Number(port),
  name: "app.test",
  secure: mode === "implicit",
  requireTLS: mode === "starttls" || mode === "auth",
  ignoreTLS: mode === "plain",
  tls: { ca: fs.readFileSync(ca) },
  auth: mode === "auth" ? { user, pass } : undefined,
});
transport
  .sendMail({ envelope: { from, to: [to] }, raw: fs.readFileSync(path) })
  .then(() => process.exit(0))
  .catch((error) => {
    console.error(error);
    process.exit(1);
  });
