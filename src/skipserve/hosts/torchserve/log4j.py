"""Log configuration of the TorchServe frontend: JSON events for the launcher, and a file."""

LOG4J = """\
<?xml version="1.0" encoding="UTF-8"?>
<Configuration status="ERROR">
  <Appenders>
    <Console name="frontend" target="SYSTEM_ERR">
      <PatternLayout charset="UTF-8" alwaysWriteExceptions="false"><Pattern>{\
"time":"%d{yyyy-MM-dd'T'HH:mm:ss.SSS'Z'}{UTC}","level":"%p{lowerCase=true}",\
"logger":"torchserve.%c{1}","message":"%enc{%m}{JSON}","exception":"%enc{%ex}{JSON}"}%n\
</Pattern></PatternLayout>
    </Console>
    <Console name="worker" target="SYSTEM_ERR">
      <PatternLayout charset="UTF-8" pattern="%m%n"/>
    </Console>
    <RollingFile name="file" fileName="LOGS/FILE" filePattern="LOGS/%i.FILE">
      <PatternLayout pattern="%d{ISO8601} %p %c{1} %m%n"/>
      <Policies><SizeBasedTriggeringPolicy size="10 MB"/></Policies>
      <DefaultRolloverStrategy max="3"/>
    </RollingFile>
  </Appenders>
  <Loggers>
    <Logger name="ACCESS_LOG" level="off"/>
    <Logger name="TS_METRICS" level="off"/>
    <Logger name="MODEL_METRICS" level="off"/>
    <Logger name="TELEMETRY_METRICS" level="off"/>
    <Logger name="org.pytorch.serve.job" level="error"/>
    <Logger name="MODEL_LOG" level="info" additivity="false">
      <AppenderRef ref="worker" level="warn"/>
      <AppenderRef ref="file"/>
    </Logger>
    <Root level="warn">
      <AppenderRef ref="frontend" level="warn"/>
      <AppenderRef ref="file"/>
    </Root>
  </Loggers>
</Configuration>
"""
